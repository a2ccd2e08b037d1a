//! What a Job may ask for: no more than a pod of the Pod Security Standard "restricted", with limits and an allowed image.
//!
//! It looks at the manifest as it will be sent, defaults included, and names every field that it refuses. What it does not
//! know, it lets through where a newer Kubernetes may know it, but not where it could be a way to the node: of volumes
//! and of projected sources it knows a list, and nothing else passes.
//! (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>)

use serde_json::Value;

use super::{names::Images, pointer::Pointer};
use crate::problem::FieldError;

/// Where a Job's pods are described.
pub const POD: &str = "/spec/template/spec";

/// Labels and annotations with this prefix are this service's own.
pub const OWN_PREFIX: &str = "math-service/";

/// The volumes of "restricted", without `csi`, whose drivers decide themselves what they mount.
const VOLUMES: [&str; 7] =
    ["configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

/// What may be projected: no `serviceAccountToken`, which would make the pod somebody.
const PROJECTED: [&str; 4] = ["clusterTrustBundle", "configMap", "downwardAPI", "secret"];

/// Every field of `job` that the policy refuses, by its pointer in the Job; empty for a Job that may be created.
#[must_use]
pub fn refusals(job: &Value, images: &Images) -> Vec<FieldError> {
    let mut inspection = Inspection { images, refusals: Vec::new() };
    let job = Pointer::root(job);
    inspection.job(job.clone());
    inspection.pod(&job.at("spec").at("template").at("spec"));
    inspection.refusals
}

struct Inspection<'a> {
    images: &'a Images,
    refusals: Vec<FieldError>,
}

impl Inspection<'_> {
    fn refuse(&mut self, field: &Pointer<'_>, detail: impl Into<String>) {
        self.refusals.push(FieldError { pointer: field.path(), detail: detail.into() });
    }

    /// Absent, null or false: anything else is refused, whatever Kubernetes would make of it.
    fn must_be_off(&mut self, field: &Pointer<'_>, detail: &str) {
        if field.value().is_some_and(|value| *value != Value::Bool(false)) {
            self.refuse(field, detail);
        }
    }

    fn must_be_absent(&mut self, field: &Pointer<'_>, detail: &str) {
        let is_empty = |value: &Value| match value {
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        if field.value().is_some_and(|value| !is_empty(value)) {
            self.refuse(field, detail);
        }
    }

    fn must_be_one_of(&mut self, field: &Pointer<'_>, allowed: &[&str]) {
        if field.value().is_some_and(|value| !value.as_str().is_some_and(|text| allowed.contains(&text))) {
            self.refuse(field, format!("must be {}", allowed.join(" or ")));
        }
    }

    fn job(&mut self, job: Pointer<'_>) {
        let spec = job.at("spec");
        self.must_be_off(
            &spec.at("manualSelector"),
            "is not allowed: the Job could take over the pods of others",
        );
        for metadata in [job.at("metadata"), spec.at("template").at("metadata")] {
            let detail = "is not allowed: it could never be deleted";
            self.must_be_absent(&metadata.at("finalizers"), detail);
        }
        for part in ["labels", "annotations"] {
            self.metadata(&job.at("metadata").at(part));
            self.metadata(&spec.at("template").at("metadata").at(part));
        }
    }

    fn metadata(&mut self, map: &Pointer<'_>) {
        for (name, entry) in map.members() {
            let is_profile = name.starts_with("container.apparmor.security.beta.kubernetes.io/")
                || name.starts_with("container.seccomp.security.alpha.kubernetes.io/")
                || name == "seccomp.security.alpha.kubernetes.io/pod";
            if is_profile {
                self.refuse(&entry, "is not allowed: profiles are set in a securityContext");
            } else if name.starts_with(OWN_PREFIX) {
                self.refuse(&entry, "is for this service to set");
            }
        }
    }

    fn pod(&mut self, pod: &Pointer<'_>) {
        for namespace in ["hostNetwork", "hostPID", "hostIPC"] {
            self.must_be_off(
                &pod.at(namespace),
                "is not allowed: a Job has no business in the node's namespaces",
            );
        }
        self.must_be_absent(&pod.at("nodeName"), "is not allowed: the scheduler chooses the node");
        for priority in ["priorityClassName", "priority"] {
            self.must_be_absent(&pod.at(priority), "is not allowed: a Job evicts nobody");
        }
        for account in ["serviceAccountName", "serviceAccount"] {
            let account = pod.at(account);
            if account.value().is_some_and(|name| !matches!(name.as_str(), Some("" | "default"))) {
                self.refuse(&account, "is not allowed: a Job does not choose whose rights it has");
            }
        }
        self.must_be_off(
            &pod.at("automountServiceAccountToken"),
            "must be false: a Job does not call the Kubernetes API",
        );
        if pod.at("automountServiceAccountToken").value().is_none() {
            self.refuse(&pod.at("automountServiceAccountToken"), "must be false");
        }
        self.must_be_absent(
            &pod.at("ephemeralContainers"),
            "is not allowed: those are for debugging running pods",
        );
        self.tolerations(&pod.at("tolerations"));
        self.volumes(&pod.at("volumes"));
        self.pod_security(&pod.at("securityContext"));
        self.containers(pod);
    }

    fn tolerations(&mut self, tolerations: &Pointer<'_>) {
        for toleration in self.items(tolerations) {
            if toleration.at("key").value().and_then(Value::as_str).is_none_or(str::is_empty) {
                self.refuse(&toleration, "must name a key: without one it tolerates every taint");
            }
        }
    }

    fn volumes(&mut self, volumes: &Pointer<'_>) {
        for volume in self.items(volumes) {
            for (kind, source) in volume.members().filter(|(name, _)| *name != "name") {
                if !VOLUMES.contains(&kind) {
                    self.refuse(&source, format!("is not allowed: volumes may be {}", VOLUMES.join(", ")));
                }
            }
            for projected in self.items(&volume.at("projected").at("sources")) {
                for (kind, source) in projected.members() {
                    if !PROJECTED.contains(&kind) {
                        let allowed = PROJECTED.join(", ");
                        self.refuse(&source, format!("is not allowed: projected may be {allowed}"));
                    }
                }
            }
        }
    }

    fn containers(&mut self, pod: &Pointer<'_>) {
        let containers = self.items(&pod.at("containers"));
        if containers.is_empty() {
            self.refuse(&pod.at("containers"), "must name at least one container");
        }
        // Sidecars are init containers that stay.
        let all = containers.into_iter().chain(self.items(&pod.at("initContainers")));
        for container in all.collect::<Vec<_>>() {
            self.image(&container.at("image"));
            self.limits(&container.at("resources").at("limits"));
            self.container_security(&container.at("securityContext"), &pod.at("securityContext"));
            self.network(&container);
        }
    }

    fn image(&mut self, image: &Pointer<'_>) {
        match image.value() {
            None => self.refuse(image, "is missing"),
            Some(Value::String(name)) => {
                if let Err(detail) = self.images.permit(name) {
                    self.refuse(image, detail);
                }
            }
            Some(_) => self.refuse(image, "must be a string"),
        }
    }

    fn limits(&mut self, limits: &Pointer<'_>) {
        for resource in ["cpu", "memory"] {
            let limit = limits.at(resource);
            match limit.value() {
                None => self.refuse(&limit, "is missing"),
                Some(quantity) if is_positive_quantity(quantity) => {}
                // Kubernetes takes a limit of zero for none.
                Some(_) => self.refuse(&limit, "must be a quantity above zero, such as 500m or 256Mi"),
            }
        }
    }

    /// What pods and containers have in common.
    fn security(&mut self, context: &Pointer<'_>) {
        if context.value().is_some_and(|value| !value.is_object()) {
            self.refuse(context, "must be an object");
        }
        let user = context.at("runAsUser");
        match user.value() {
            Some(Value::Number(id)) if id.as_u64().is_some_and(|id| id > 0) => {}
            Some(_) => self.refuse(&user, "must be above 0: root is not allowed"),
            None => {}
        }
        let non_root = context.at("runAsNonRoot");
        if non_root.value().is_some_and(|value| *value != Value::Bool(true)) {
            self.refuse(&non_root, "must be true");
        }
        for profile in ["seccompProfile", "appArmorProfile"] {
            let profile = context.at(profile);
            self.must_be_one_of(&profile.at("type"), &["RuntimeDefault", "Localhost"]);
            if profile.value().is_some() && profile.at("type").value().is_none() {
                self.refuse(&profile.at("type"), "is missing");
            }
        }
        self.must_be_absent(&context.at("seLinuxOptions"), "is not allowed");
        self.must_be_off(&context.at("windowsOptions").at("hostProcess"), "is not allowed");
    }

    fn pod_security(&mut self, context: &Pointer<'_>) {
        self.security(context);
        self.must_be_absent(&context.at("sysctls"), "is not allowed");
    }

    fn container_security(&mut self, own: &Pointer<'_>, pods: &Pointer<'_>) {
        self.security(own);
        self.must_be_off(&own.at("privileged"), "is not allowed");
        let escalation = own.at("allowPrivilegeEscalation");
        if escalation.value() != Some(&Value::Bool(false)) {
            self.refuse(&escalation, "must be false");
        }
        let capabilities = own.at("capabilities");
        self.must_be_absent(&capabilities.at("add"), "is not allowed: no capability is added");
        let is_all = |item: &Pointer<'_>| item.value().and_then(Value::as_str) == Some("ALL");
        if !self.items(&capabilities.at("drop")).iter().any(is_all) {
            self.refuse(&capabilities.at("drop"), "must hold ALL");
        }
        self.must_be_one_of(&own.at("procMount"), &["Default"]);
        for (field, detail) in [("runAsNonRoot", "must be true"), ("seccompProfile", "is missing")] {
            if own.at(field).value().or(pods.at(field).value()).is_none() {
                self.refuse(&own.at(field), detail);
            }
        }
    }

    fn network(&mut self, container: &Pointer<'_>) {
        for port in self.items(&container.at("ports")) {
            let host = port.at("hostPort");
            if host.value().is_some_and(|value| value.as_u64() != Some(0)) {
                self.refuse(&host, "is not allowed: a Job has no port of the node");
            }
        }
        let lifecycle = container.at("lifecycle");
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| container.at(probe));
        for action in probes.into_iter().chain(["postStart", "preStop"].map(|hook| lifecycle.at(hook))) {
            for kind in ["httpGet", "tcpSocket"] {
                let detail = "is not allowed: the kubelet calls the pod, nobody else";
                self.must_be_absent(&action.at(kind).at("host"), detail);
            }
        }
    }

    /// The elements of an array; something else is refused, so that nothing in it goes unseen.
    fn items<'v>(&mut self, array: &Pointer<'v>) -> Vec<Pointer<'v>> {
        match array.value() {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                let items: Vec<_> = (0..items.len()).map(|index| array.item(index)).collect();
                for item in items.iter().filter(|item| item.value().is_none()) {
                    self.refuse(item, "must not be null");
                }
                items
            }
            Some(_) => {
                self.refuse(array, "must be an array");
                Vec::new()
            }
        }
    }
}

/// A number with an optional suffix, above zero (Kubernetes' `resource.Quantity`).
fn is_positive_quantity(quantity: &Value) -> bool {
    match quantity {
        Value::Number(number) => number.as_f64().is_some_and(|number| number > 0.0),
        Value::String(text) => is_positive_amount(text),
        _ => false,
    }
}

/// Whether a quantity's text is one, and above zero.
#[must_use]
pub fn is_positive_amount(text: &str) -> bool {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(end);
    let is_number = digits.bytes().filter(|byte| *byte == b'.').count() <= 1
        && digits.bytes().any(|byte| byte.is_ascii_digit())
        && digits.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    let is_exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        (1..=3).contains(&exponent.len()) && exponent.bytes().all(|byte| byte.is_ascii_digit())
    });
    let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    text.len() <= 32 && is_number && (suffixes.contains(&suffix) || is_exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_of_nothing_is_no_limit() {
        for good in ["1", "500m", "0.5", ".5", "1.", "256Mi", "1e3", "2E", "1E-3", "+1", "100n"] {
            assert!(is_positive_amount(good), "{good}");
        }
        for bad in [
            "", "0", "0.0", "0Mi", "-1", "m", ".", "1.2.3", "1 Gi", "1gi", "1e", "1e+", "Inf", "NaN", "0e9",
            "1mm",
        ] {
            assert!(!is_positive_amount(bad), "{bad}");
        }
    }
}
