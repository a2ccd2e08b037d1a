# Each environment has a state of its own: scripts/terraform-lib.sh names the bucket, which bootstrap/ makes and whose
# name holds the account's number, and the key, which is the environment's name.
terraform {
  backend "s3" {
    region       = "eu-west-2"
    encrypt      = true
    use_lockfile = true
  }
}
