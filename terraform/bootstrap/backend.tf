# Its state is in the bucket that it makes. scripts/terraform-bootstrap.sh keeps it here until there is one, and then
# moves it there.
terraform {
  backend "s3" {
    region       = "eu-west-2"
    key          = "bootstrap/terraform.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}
