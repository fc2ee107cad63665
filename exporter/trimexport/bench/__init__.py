"""Speed and memory of a bundle's variants, and of what they are compared with.

`subjects` names what is measured, `worker` is a subject's process and `process` drives it, `rounds`
measures the subjects in turn, `machine` describes the machine, `render` writes the result.
"""
