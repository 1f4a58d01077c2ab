"""A certificate authority that speaks istiod's protocol to a real ztunnel, with faults on demand."""
