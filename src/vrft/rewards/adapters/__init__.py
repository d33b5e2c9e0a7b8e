"""The same rewards in the forms that other trainers call: TRL, verl, EasyR1 and ms-swift (docs/rewards.md)."""
