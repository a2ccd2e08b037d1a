# Reads config/ for the tests, which can take variables only one by one.
terraform {
  required_providers {
    terraform = {
      source = "terraform.io/builtin/terraform"
    }
  }
}

output "dev" {
  value = provider::terraform::decode_tfvars(file("${path.module}/../../config/dev.tfvars"))
}

output "prod" {
  value = provider::terraform::decode_tfvars(file("${path.module}/../../config/prod.tfvars"))
}
