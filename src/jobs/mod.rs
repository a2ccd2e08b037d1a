//! Long work, handed to Kubernetes as Jobs.
//!
//! - [`cluster`]: the way to the EKS cluster, by IAM alone.

pub mod cluster;
