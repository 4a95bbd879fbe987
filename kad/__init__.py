"""kad: VRRP failover, health-checked IPVS and BFD from a keepalived.conf, in isolated processes."""

__version__ = "0.1.0"
