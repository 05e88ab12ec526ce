"""DPO on packed batches: chosen and rejected behind one prompt, with the numbers of TRL."""
