"""What benches/compare.py consists of: the rows, the machine, the measuring, the record and the page."""
