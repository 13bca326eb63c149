"""Back ends with a planted defect and workloads to race them on; workers find them through an entry
point that conftest.py writes.
"""
