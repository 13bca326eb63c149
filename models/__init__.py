"""Networks, data and training: what hands the harness its workloads."""
