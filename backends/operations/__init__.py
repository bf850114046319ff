"""What the tool does: plan() -> Plan, then carry it out. Also the fleet's status, composed from catalogue and risk."""
