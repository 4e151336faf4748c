//! The inference server: loads a model package, answers the Open Inference Protocol and image
//! classification over HTTP, and leaves without failing a request. Knows nothing of Kubernetes.
