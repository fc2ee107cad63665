"""`trimexport bench`: speed and memory of a bundle's variants, and of what they are compared with.

`subjects` says what is measured, `worker` is a subject's process and `process` drives it, `rounds`
measures all of them in turn, `machine` names the machine, `render` writes the result.
"""
