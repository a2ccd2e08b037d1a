terraform {
  # The first whose S3 backend locks without a table of its own.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      service     = "math-service"
      environment = var.environment
      managed-by  = "terraform"
    }
  }
}
