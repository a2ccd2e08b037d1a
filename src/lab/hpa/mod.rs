//! The HorizontalPodAutoscaler of Kubernetes 1.32 and later, without a cluster.
