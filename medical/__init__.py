"""Clinical data in and out: volumes, their formats, and priors for them. Research use only."""
