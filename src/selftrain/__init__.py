"""selftrain: self-rewarded training of reasoning models, with a guard and a full record."""
