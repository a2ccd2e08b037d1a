# make terraform-plan ENV=prod
environment = "prod"
# Not dev's: two networks with the same addresses can never be joined.
vpc_cidr            = "10.1.0.0/16"
high_availability   = true
deletion_protection = true
log_retention_days  = 365

# dev's, whose images were tried there. True where production has an account of its own.
makes_repository = false

# As in dev.tfvars.
api_public_cidrs  = []
cluster_admins    = []
github_repository = ""
