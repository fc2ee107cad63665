"""Files by the million: scored in parts that are kept one by one, so that a job can go on."""
