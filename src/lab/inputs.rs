//! The files that a project has anyway, read as they are: manifests, eksctl's cluster configuration, a SAM template.
//!
//! Read leniently: what no rule asks for is passed over. What a file leaves open gets the default of who would read it
//! otherwise: the API server, eksctl, SAM, this service.

use serde_json::Value;

use super::{
    cluster::{Cluster, Instance},
    container::Workload,
    cost::{Architecture, Balancer, Gateway},
    hpa::{minor_of, objects, quantity},
    lambda::Function,
};

/// Requests at once and their timeout, where the manifest does not set them: this service's own defaults.
const MAX_IN_FLIGHT: f64 = 10_000.0;
const TIMEOUT_SECONDS: f64 = 30.0;
const POD_START_SECONDS: u64 = 2;
const NODE_START_SECONDS: u64 = 90;

/// Reads YAML documents, or JSON.
///
/// # Errors
/// Why they are neither.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| format!("not YAML: {error}"))
}

/// Reads one YAML document, or JSON, into a type.
///
/// # Errors
/// What is wrong with it, in a line.
pub fn typed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// All objects, those in lists too.
fn flattened(documents: Vec<Value>) -> Vec<Value> {
    let mut objects = Vec::new();
    let mut open = documents;
    while let Some(mut document) = open.pop() {
        if is_kind(&document, "List") {
            if let Some(Value::Array(items)) = document.get_mut("items").map(Value::take) {
                open.extend(items);
            }
        } else {
            objects.push(document);
        }
    }
    objects.reverse();
    objects
}

fn is_kind(document: &Value, kind: &str) -> bool {
    document.get("kind").and_then(Value::as_str) == Some(kind)
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn whole(value: &Value, pointer: &str) -> Option<u32> {
    value.pointer(pointer).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
}

/// A Deployment with its autoscaler and what is in front of it, from manifests as kustomize renders them or as `kubectl
/// get -o yaml` prints them.
///
/// # Errors
/// What is missing, or cannot be read.
pub fn workload(manifests: &str) -> Result<Workload, String> {
    let objects = flattened(documents(manifests)?);
    let is_overlay = |object: &Value| {
        let has = |key: &str| object.get(key).is_some();
        is_kind(object, "Component")
            || (is_kind(object, "Kustomization") && (has("patches") || has("components")))
    };
    if objects.iter().any(is_overlay) {
        return Err("this is an overlay that is not rendered: give what `kubectl kustomize` prints".into());
    }
    let hpas = objects::read(manifests)?.hpas;
    if hpas.len() > 1 {
        return Err("there are several HorizontalPodAutoscalers: give one".into());
    }
    let hpa = hpas.into_iter().next().map(|(hpa, _)| hpa);
    let deployments: Vec<&Value> = objects
        .iter()
        .filter(|object| is_kind(object, "Deployment") || is_kind(object, "StatefulSet"))
        .filter(|object| {
            hpa.as_ref().is_none_or(|hpa| text(object, "/metadata/name") == Some(hpa.target.name.as_str()))
        })
        .collect();
    let [deployment] = deployments.as_slice() else {
        return Err(match &hpa {
            Some(hpa) => format!("there is no Deployment {}, which the autoscaler scales", hpa.target.name),
            None => format!("there are {} Deployments instead of one", deployments.len()),
        });
    };
    let mut workload = of_deployment(deployment)?;
    workload.hpa = hpa;
    workload.balancer = balancer(&objects);
    Ok(workload)
}

fn of_deployment(deployment: &Value) -> Result<Workload, String> {
    let container =
        deployment.pointer("/spec/template/spec/containers/0").ok_or("the Deployment has no container")?;
    let amount = |pointer: &str| -> Result<Option<i64>, String> {
        match container.pointer(pointer) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => quantity::milli(text).map(Some),
            Some(Value::Number(number)) => quantity::milli(&number.to_string()).map(Some),
            Some(_) => Err(format!("{pointer} is not a quantity")),
        }
    };
    let mib = |milli: i64| milli as f64 / 1000.0 / 1_048_576.0;
    // What is limited and not requested is requested.
    let cpu_limit = amount("/resources/limits/cpu")?;
    let memory_limit = amount("/resources/limits/memory")?;
    Ok(Workload {
        replicas: whole(deployment, "/spec/replicas").unwrap_or(1),
        hpa: None,
        container: text(container, "/name").unwrap_or_default().to_owned(),
        cpu_request_milli: amount("/resources/requests/cpu")?.or(cpu_limit),
        memory_request_mib: amount("/resources/requests/memory")?
            .or(memory_limit)
            .map(|milli| mib(milli).ceil() as i64),
        cpu_limit: cpu_limit.map(|milli| milli as f64 / 1000.0),
        memory_limit_mib: memory_limit.map(mib),
        max_in_flight: variable(container, "MAX_IN_FLIGHT")
            .and_then(|value| value.parse().ok())
            .unwrap_or(MAX_IN_FLIGHT),
        timeout_seconds: variable(container, "REQUEST_TIMEOUT")
            .and_then(|value| humantime::parse_duration(value).ok())
            .map_or(TIMEOUT_SECONDS, |timeout| timeout.as_secs_f64()),
        pod_start_seconds: POD_START_SECONDS,
        balancer: Balancer::None,
    })
}

fn variable<'v>(container: &'v Value, name: &str) -> Option<&'v str> {
    let variables = container.pointer("/env")?.as_array()?;
    let found = variables.iter().find(|variable| text(variable, "/name") == Some(name))?;
    text(found, "/value")
}

fn balancer(objects: &[Value]) -> Balancer {
    let is_application = |object: &&Value| {
        is_kind(object, "Ingress")
            && text(object, "/spec/ingressClassName").is_none_or(|class| class == "alb")
    };
    let is_classic =
        |object: &&Value| is_kind(object, "Service") && text(object, "/spec/type") == Some("LoadBalancer");
    if objects.iter().any(|object| is_application(&object)) {
        Balancer::Application
    } else if objects.iter().any(|object| is_classic(&object)) {
        Balancer::Classic
    } else {
        Balancer::None
    }
}

/// A cluster and its region, from eksctl's configuration. Its first node group counts.
///
/// # Errors
/// What is missing, or cannot be read.
pub fn cluster(config: &str) -> Result<(Cluster, String), String> {
    let objects = documents(config)?;
    let config =
        objects.iter().find(|object| is_kind(object, "ClusterConfig")).ok_or("there is no ClusterConfig")?;
    let region = text(config, "/metadata/region").ok_or("the ClusterConfig names no region")?;
    let group = config
        .pointer("/managedNodeGroups/0")
        .or_else(|| config.pointer("/nodeGroups/0"))
        .ok_or("the ClusterConfig has no node group")?;
    let name = text(group, "/instanceType").or_else(|| text(group, "/instanceTypes/0")).unwrap_or("m5.large");
    // eksctl: two nodes unless told otherwise, and bounds that follow.
    let nodes = whole(group, "/desiredCapacity").or_else(|| whole(group, "/minSize")).unwrap_or(2);
    let is_autoscaled = ["k8s.io/cluster-autoscaler/enabled"]
        .iter()
        .any(|tag| group.pointer("/tags").and_then(|tags| tags.get(tag)).is_some());
    let nat = text(config, "/vpc/nat/gateway").unwrap_or("Single");
    let version = text(config, "/metadata/version").and_then(minor_of);
    let cluster = Cluster {
        instance: Instance::of(name)?,
        nodes,
        min_nodes: whole(group, "/minSize").unwrap_or(nodes),
        max_nodes: whole(group, "/maxSize").unwrap_or(nodes),
        is_autoscaled,
        node_start_seconds: NODE_START_SECONDS,
        volume_gb: whole(group, "/volumeSize").unwrap_or(80),
        nat_gateways: match nat {
            "Disable" => 0,
            "HighlyAvailable" => 3,
            _ => 1,
        },
        has_public_nodes: group.pointer("/privateNetworking") != Some(&Value::Bool(true)),
        minor: version.unwrap_or(32),
        is_extended: false,
    };
    cluster.check()?;
    Ok((cluster, region.to_owned()))
}

/// A function, from a SAM template: its first, with the parameters' defaults.
///
/// # Errors
/// What is missing, or cannot be read.
pub fn function(template: &str) -> Result<Function, String> {
    let template = documents(&untagged(template))?.into_iter().next().ok_or("the template is empty")?;
    let resources = template.pointer("/Resources").and_then(Value::as_object).ok_or("it has no Resources")?;
    let of_type = |kind: &str| {
        resources
            .values()
            .find(|resource| text(resource, "/Type") == Some(kind))
            .and_then(|r| r.get("Properties"))
    };
    let own = of_type("AWS::Serverless::Function").ok_or("it has no AWS::Serverless::Function")?;
    let globals = template.pointer("/Globals/Function");
    let setting =
        |name: &str| own.get(name).or_else(|| globals?.get(name)).map(|value| resolved(&template, value));
    let number = |name: &str| setting(name).and_then(|value| as_number(&value));
    let architecture = setting("Architectures")
        .and_then(|value| value.get(0).map(|first| resolved(&template, first)))
        .and_then(|value| serde_json::from_value::<Architecture>(value).ok());
    let provisioned = own.pointer("/ProvisionedConcurrencyConfig/ProvisionedConcurrentExecutions");
    let (gateway, api) = gateway(own, &of_type);
    let limit = |name: &str| {
        let settings = api?.get("DefaultRouteSettings").or_else(|| api?.pointer("/MethodSettings/0"))?;
        settings.get(name).and_then(|value| as_number(&resolved(&template, value)))
    };
    let throttle = limit("ThrottlingRateLimit").zip(limit("ThrottlingBurstLimit"));
    let standard = Function::default();
    let function = Function {
        memory_mb: number("MemorySize").map_or(standard.memory_mb, |mb| mb as u32),
        architecture: architecture.unwrap_or_default(),
        timeout_seconds: number("Timeout").unwrap_or(standard.timeout_seconds),
        reserved: number("ReservedConcurrentExecutions").map(|number| number as u32),
        provisioned: provisioned
            .and_then(|value| as_number(&resolved(&template, value)))
            .map_or(0, |number| number as u32),
        gateway,
        throttle,
        ..standard
    };
    function.check()?;
    Ok(function)
}

/// Which gateway the function's events name, and the resource with its settings.
fn gateway<'t>(
    function: &'t Value,
    of_type: &impl Fn(&str) -> Option<&'t Value>,
) -> (Gateway, Option<&'t Value>) {
    let events = function.get("Events").and_then(Value::as_object);
    let has = |kind: &str| {
        events.is_some_and(|events| events.values().any(|event| text(event, "/Type") == Some(kind)))
    };
    if has("HttpApi") {
        (Gateway::Http, of_type("AWS::Serverless::HttpApi"))
    } else if has("Api") {
        (Gateway::Rest, of_type("AWS::Serverless::Api"))
    } else {
        (Gateway::Url, None)
    }
}

fn as_number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// A value with the default of the parameter that it refers to in its place.
fn resolved(template: &Value, value: &Value) -> Value {
    let Some(name) = text(value, "/Ref") else { return value.clone() };
    let parameter = template.get("Parameters").and_then(|parameters| parameters.get(name));
    parameter.and_then(|parameter| parameter.get("Default")).cloned().unwrap_or_default()
}

/// CloudFormation's short forms without their tags: `!Ref Name` becomes a mapping, what other tags mark stays as it is
/// written.
///
/// Source: <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference.html>.
fn untagged(template: &str) -> String {
    let mut output = String::with_capacity(template.len() + 256);
    for line in template.lines() {
        // In comments and texts a mark is a mark.
        let mut rest = line;
        while let Some(at) = tag(rest) {
            output.push_str(&rest[..at]);
            let word = rest[at + 1..]
                .find(|c: char| !c.is_ascii_alphanumeric() && c != ':')
                .map_or(rest.len(), |end| at + 1 + end);
            let value = rest[word..].trim_start();
            if &rest[at..word] == "!Ref" {
                let end = value.find([',', ']', '}', ' ', '#']).unwrap_or(value.len());
                output.push_str(&format!("{{Ref: \"{}\"}}", value[..end].trim_matches(['"', '\''])));
                rest = &value[end..];
            } else {
                rest = value;
            }
        }
        output.push_str(rest);
        output.push('\n');
    }
    output
}

/// Where the next tag of a line begins: at the start of a value.
fn tag(line: &str) -> Option<usize> {
    let mut quote = None;
    let mut before = ' ';
    for (at, character) in line.char_indices() {
        match (quote, character) {
            (None, '#') if before.is_whitespace() => return None,
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, '!')
                if matches!(before, ' ' | '[' | ',' | '{')
                    && line[at + 1..].starts_with(|c: char| c.is_ascii_uppercase()) =>
            {
                return Some(at);
            }
            _ => {}
        }
        before = character;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::hpa::spec::Source;

    const TEMPLATE: &str = include_str!("../../template.yaml");
    const CLUSTER: &str = include_str!("../../cluster-config.yaml");

    fn base() -> String {
        [
            include_str!("../../k8s/base/deployment.yaml"),
            include_str!("../../k8s/base/hpa.yaml"),
            include_str!("../../k8s/base/service.yaml"),
        ]
        .join("\n---\n")
    }

    #[test]
    fn the_project_s_own_manifests_are_read_as_they_are() {
        let workload = workload(&base()).unwrap();
        assert_eq!((workload.cpu_request_milli, workload.memory_request_mib), (Some(100), Some(64)));
        assert_eq!((workload.cpu_limit, workload.memory_limit_mib), (None, Some(256.0)));
        assert_eq!((workload.max_in_flight, workload.timeout_seconds), (2000.0, 30.0));
        assert_eq!(workload.balancer, Balancer::Classic);
        let hpa = workload.hpa.unwrap();
        assert_eq!((hpa.min_replicas, hpa.max_replicas, hpa.metrics.len()), (2, 5, 2));
        assert_eq!(hpa.metrics[0].source, Source::Resource { name: "cpu".into() });
    }

    #[test]
    fn a_list_as_kubectl_prints_it_is_the_same() {
        let items: Vec<Value> = documents(&base()).unwrap();
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
        assert_eq!(workload(&list).unwrap(), workload(&base()).unwrap());
    }

    #[test]
    fn an_overlay_has_to_be_rendered() {
        for overlay in [
            include_str!("../../k8s/overlays/demo/kustomization.yaml"),
            include_str!("../../k8s/overlays/alb/kustomization.yaml"),
            include_str!("../../k8s/components/alb/kustomization.yaml"),
        ] {
            assert!(workload(overlay).unwrap_err().contains("kubectl kustomize"), "{overlay}");
        }
    }

    #[test]
    fn the_project_s_own_cluster_is_read_as_it_is() {
        let (cluster, region) = cluster(CLUSTER).unwrap();
        assert_eq!((cluster.instance.name, region.as_str()), ("t3.large", "eu-west-2"));
        assert_eq!((cluster.nodes, cluster.min_nodes, cluster.max_nodes), (2, 2, 3));
        assert!(cluster.is_autoscaled && cluster.has_public_nodes);
        assert_eq!((cluster.minor, cluster.volume_gb, cluster.nat_gateways), (35, 20, 1));
    }

    #[test]
    fn the_project_s_own_template_is_read_with_its_tags() {
        let function = function(TEMPLATE).unwrap();
        assert_eq!((function.memory_mb, function.architecture), (128, Architecture::Arm));
        assert_eq!((function.timeout_seconds, function.gateway), (29.0, Gateway::Http));
        assert_eq!(function.throttle, Some((100.0, 200.0)));
    }

    #[test]
    fn tags_are_taken_off_values_and_nothing_else() {
        for (line, expected) in [
            ("A: !Ref Name", "A: {Ref: \"Name\"}"),
            ("A: [!Ref One, !Ref Two]", "A: [{Ref: \"One\"}, {Ref: \"Two\"}]"),
            ("A: !Equals [!Ref Name, \"\"]", "A: [{Ref: \"Name\"}, \"\"]"),
            ("A: !Sub \"x-${B}!Ref\"", "A: \"x-${B}!Ref\""),
            ("A: !GetAtt B.Arn # not !Ref", "A: B.Arn # not !Ref"),
            ("A: \"say !Ref\"", "A: \"say !Ref\""),
            ("  - !Sub arn:${AWS::Region}", "  - arn:${AWS::Region}"),
            ("A: it's !Ref", "A: it's {Ref: \"\"}"),
        ] {
            assert_eq!(untagged(line).trim_end_matches('\n'), expected, "{line}");
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(workload("").unwrap_err().contains("Deployments"));
        assert!(workload("kind: [").unwrap_err().contains("not YAML"));
        assert!(cluster("kind: ClusterConfig").unwrap_err().contains("region"));
        assert!(function("Resources: {}").unwrap_err().contains("AWS::Serverless::Function"));
    }
}
