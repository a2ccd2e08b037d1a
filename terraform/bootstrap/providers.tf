# What an account needs once, before its first environment: `make terraform-bootstrap`.
terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

provider "aws" {
  region = local.region

  default_tags {
    tags = {
      service    = "math-service"
      managed-by = "terraform"
    }
  }
}
