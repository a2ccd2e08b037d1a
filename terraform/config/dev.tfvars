# make terraform-plan ENV=dev
#
# As cheap as a whole cluster gets, and easily deleted. What is not here has its default in variables.tf.
environment         = "dev"
vpc_cidr            = "10.0.0.0/16"
high_availability   = false
deletion_protection = false
log_retention_days  = 14

# The one repository of the account. Where production has an account of its own, both make one.
makes_repository = true

# Who reaches the cluster's API from outside: your address, as ["203.0.113.7/32"]. Without one, kubectl works only from
# machines in the network.
api_public_cidrs = []
# Who administers it besides whoever creates it, as ["arn:aws:iam::111122223333:role/admin"].
cluster_admins = []
# Whose workflows deploy to it, as "owner/name".
github_repository = ""
