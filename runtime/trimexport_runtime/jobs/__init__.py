"""Jobs: files of any size, classified in parts that are kept, so that a job can go on."""
