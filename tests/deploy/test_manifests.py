"""The Kubernetes manifests as `kubectl apply -k` would send them: against Kubernetes' own schemas and against the service."""

import copy
import hashlib
import http.client
import ipaddress
import re

import kubernetes_validate
import pytest
from autoscaler import utilization_targets
from conftest import readmes_own, rendered
from support import PATIENCE_SECONDS, ROOT, bytes_of, cannot_run, dynamodb_actions, get, read_yaml, running_server, seconds

# Kinds that Kubernetes itself does not know, so its schemas cannot judge them; the tests below look at what matters.
CUSTOM_KINDS = {("monitoring.coreos.com/v1", "ServiceMonitor")}

# AWS's documentation uses this one; any other would be somebody's.
DOCUMENTATION_ACCOUNT = "111122223333"


def kubernetes_version() -> str:
    return read_yaml("cluster-config.yaml")["metadata"]["version"]


def test_every_document_is_valid_for_the_clusters_kubernetes_version(manifests):
    for document in manifests:
        if (document["apiVersion"], document["kind"]) not in CUSTOM_KINDS:
            kubernetes_validate.validate(document, kubernetes_version(), strict=True)


def test_the_schemas_refuse_a_misspelled_field(base):
    deployment = copy.deepcopy(base.one("Deployment"))
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 45
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_version(), strict=True)


def test_the_names_are_those_that_existing_commands_use(manifests):
    names = {document["kind"]: document["metadata"]["name"] for document in manifests}
    assert names["Deployment"] == "math-service-deployment"
    assert names["Service"] == "math-service-service"
    assert names["HorizontalPodAutoscaler"] == "math-service-hpa"
    assert manifests.container()["name"] == "math-service-container"
    (port,) = manifests.one("Service")["spec"]["ports"]
    assert port["port"] == 80
    assert all(document["metadata"]["labels"]["app"] == "math-service" for document in manifests)


def test_every_selector_matches_the_pods(manifests):
    pod = manifests.one("Deployment")["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    selectors = {
        "Deployment": manifests.one("Deployment")["spec"]["selector"]["matchLabels"],
        "Service": manifests.one("Service")["spec"]["selector"],
        "PodDisruptionBudget": manifests.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": manifests.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    }
    for number, constraint in enumerate(pod["spec"]["topologySpreadConstraints"]):
        selectors[f"topology spread {number}"] = constraint["labelSelector"]["matchLabels"]
    for where, selector in selectors.items():
        assert selector and selector.items() <= labels, where


def test_the_ports_lead_from_the_service_to_the_listener(manifests, known_settings):
    (port,) = manifests.container()["ports"]
    assert str(port["containerPort"]) == manifests.env().get("PORT", known_settings["PORT"]) == "8000"
    (service_port,) = manifests.one("Service")["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]


def test_every_probed_or_scraped_path_is_answered_200_on_the_probed_port(manifests, server):
    container = manifests.container()
    ports = {port["name"] for port in container["ports"]}
    paths = {}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports, probe
        paths[probe] = container[probe]["httpGet"]["path"]
    for document in manifests:
        for name, value in document["metadata"].get("annotations", {}).items():
            if name.endswith("healthcheck-path"):
                paths[name] = value
    service_ports = {port["name"] for port in manifests.one("Service")["spec"]["ports"]}
    for monitor in manifests.all("ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            assert endpoint["port"] in service_ports
            paths["ServiceMonitor"] = endpoint["path"]
    paths["scrape annotation"] = manifests.one("Deployment")["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"]
    port, _ = server
    for where, path in paths.items():
        assert get(port, path).status == 200, f"{where}: {path}"
    assert paths["livenessProbe"] == "/livez", "a liveness probe must not fail while the pod drains"
    assert paths["readinessProbe"] == "/readyz", "readiness is what fails first in a drain"


def test_the_pods_are_annotated_for_prometheus_with_the_metrics_of_the_autoscalers(manifests, server):
    annotations = manifests.one("Deployment")["spec"]["template"]["metadata"]["annotations"]
    (port,) = manifests.container()["ports"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    metrics = get(server[0], annotations["prometheus.io/path"])
    assert metrics.getheader("content-type").startswith("text/plain; version=0.0.4")
    assert "# TYPE http_server_active_requests gauge" in metrics.text
    assert "# TYPE load_slots_busy gauge" in metrics.text


def test_every_variable_is_a_setting_and_has_a_usable_value(manifests, known_settings, tmp_path):
    env = manifests.env()
    assert env.keys() <= known_settings.keys()
    if "AUTH_TOKENS_FILE" in env:
        # What the Secret holds is not in the manifests; a file that is not there would stop the start.
        env["AUTH_TOKENS_FILE"] = str(tmp_path / "tokens")
        (tmp_path / "tokens").write_text(f"{'0' * 64} somebody jobs:read\n")
    if "JOBS_TEMPLATES_DIR" in env:
        # A ConfigMap of these files.
        env["JOBS_TEMPLATES_DIR"] = str(ROOT / "k8s/components/jobs/templates")
    with running_server(**env) as (port, _):
        assert get(port, "/readyz").status == 200


def test_the_grace_period_covers_the_whole_drain(manifests, known_settings):
    pod = manifests.one("Deployment")["spec"]["template"]["spec"]
    setting = {**known_settings, **manifests.env()}
    pre_stop = manifests.container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = pre_stop + seconds(setting["DRAIN_DELAY"]) + seconds(setting["DRAIN_TIMEOUT"]) + 5
    assert pre_stop >= 5, "endpoints need some seconds to spread"
    assert pod["terminationGracePeriodSeconds"] >= needed


def test_no_balancer_gives_up_on_a_request_before_the_service_does(manifests, known_settings):
    longest = seconds({**known_settings, **manifests.env()}["REQUEST_TIMEOUT"])
    assert longest < 60, "AWS's load balancers close a connection on which nothing came for 60 s"
    for document in manifests:
        for name, value in document["metadata"].get("annotations", {}).items():
            if name.endswith("connection-draining-timeout"):
                assert int(value) >= longest
            if name.endswith("target-group-attributes"):
                assert int(re.fullmatch(r"deregistration_delay\.timeout_seconds=(\d+)", value)[1]) >= longest


def test_the_autoscaler_names_the_deployment_and_says_how_fast_it_may_act(manifests):
    deployment = manifests.one("Deployment")
    autoscaler = manifests.one("HorizontalPodAutoscaler")["spec"]
    assert autoscaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert autoscaler["behavior"].keys() == {"scaleUp", "scaleDown"}


def test_the_autoscaler_owns_the_size_of_all_but_the_demo(manifests):
    # With a number in the Deployment every apply would reset what the autoscaler chose.
    assert ("replicas" in manifests.one("Deployment")["spec"]) == (manifests.name == "demo")


@pytest.mark.parametrize("name", ["base", "alb", "servicemonitor"])
def test_the_base_scales_on_half_of_its_requests(name, base, overlay):
    autoscaler = (base if name == "base" else overlay(name)).one("HorizontalPodAutoscaler")["spec"]
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (2, 5)
    assert utilization_targets(autoscaler) == {"cpu": 50, "memory": 60}


def test_what_the_autoscaler_measures_is_requested(manifests):
    resources = manifests.container()["resources"]
    assert resources["requests"].keys() == {"cpu", "memory"}
    assert bytes_of(resources["limits"]["memory"]) >= bytes_of(resources["requests"]["memory"])


def test_idle_memory_is_under_a_fifth_of_the_request(manifests, server):
    _, process = server
    try:
        status = open(f"/proc/{process.pid}/status").read()
    except FileNotFoundError:
        cannot_run("memory is read from /proc, which is Linux's")
    # Without the pages of the program's own file, of which the debug build that runs here has many times as many.
    idle = sum(int(re.search(rf"{kind}:\s+(\d+) kB", status)[1]) * 1024 for kind in ("RssAnon", "RssShmem"))
    request = bytes_of(manifests.container()["resources"]["requests"]["memory"])
    assert idle < request / 5, f"{idle} of {request} bytes: the autoscaler would see load where there is none"


def test_a_rollout_and_a_node_drain_keep_the_service_up(manifests):
    strategy = manifests.one("Deployment")["spec"]["strategy"]
    assert strategy["rollingUpdate"]["maxUnavailable"] == 0
    assert manifests.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    spread = {c["topologyKey"] for c in manifests.one("Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]}
    assert spread == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


def test_the_pod_meets_the_restricted_pod_security_standard(manifests):
    pod = manifests.one("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any(pod.get(shared) for shared in ("hostNetwork", "hostPID", "hostIPC", "initContainers"))
    # Nothing of the node's: the standard allows ConfigMaps and Secrets.
    assert all(volume.keys() in ({"name", "configMap"}, {"name", "secret"}) for volume in pod.get("volumes", []))
    assert all(mount["readOnly"] for mount in manifests.container().get("volumeMounts", []))
    assert manifests.container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPort" in port for port in manifests.container()["ports"])


def test_the_pod_gets_no_token_for_the_kubernetes_api(manifests):
    pod = manifests.one("Deployment")["spec"]["template"]["spec"]
    account = manifests.one("ServiceAccount")
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert pod["automountServiceAccountToken"] is account["automountServiceAccountToken"] is False


def test_the_network_policy_lets_in_the_one_port_and_lets_out_only_dns(manifests):
    policy = manifests.one("NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    (port,) = manifests.container()["ports"]
    # No `from`: probes and balancers come from addresses that no pod selector matches.
    assert policy["ingress"] == [{"ports": [{"protocol": "TCP", "port": port["containerPort"]}]}]
    egress, *elsewhere = policy["egress"]
    named = {variable["name"] for variable in manifests.container().get("env", [])}
    assert bool(elsewhere) == bool(named & {"STATE_URL", "EKS_CLUSTER_NAME"}), "to a store and to a cluster, where there is one"
    assert egress["to"] and {(p["protocol"], p["port"]) for p in egress["ports"]} == {("UDP", 53), ("TCP", 53)}


def test_the_image_is_said_in_one_place(manifests):
    (image,) = read_yaml("k8s/base/kustomization.yaml")["images"]
    assert image["newName"] == "my-math-service"
    assert manifests.container()["image"] == f"{image['newName']}:{image['newTag']}"
    mentions = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "k8s").rglob("*.yaml")
        if re.search(r"^[^#]*my-math-service", path.read_text(), re.MULTILINE)
    }
    assert mentions == {"k8s/base/kustomization.yaml"}


def test_no_file_names_an_account():
    files = [*(ROOT / "k8s").rglob("*.yaml"), *map(ROOT.joinpath, ("template.yaml", "samconfig.toml", "cluster-config.yaml"))]
    found = {(path.name, number) for path in files for number in re.findall(r"(?<!\d)\d{12}(?!\d)", path.read_text())}
    assert {number for _, number in found} <= {DOCUMENTATION_ACCOUNT}, found


def test_the_load_balancer_speaks_http_and_checks_health_over_http(base):
    service = base.one("Service")
    prefix = "service.beta.kubernetes.io/aws-load-balancer-"
    annotations = service["metadata"]["annotations"]
    assert service["spec"]["type"] == "LoadBalancer"
    assert annotations[f"{prefix}backend-protocol"] == "http"
    assert annotations[f"{prefix}healthcheck-path"] == "/healthz"
    assert annotations[f"{prefix}healthcheck-protocol"] == "HTTP", "the path is ignored in a TCP check"


def test_the_alb_overlay_has_one_way_in_and_it_is_https(overlay):
    alb = overlay("alb")
    service, ingress = alb.one("Service"), alb.one("Ingress")
    assert service["spec"]["type"] == "ClusterIP" and "annotations" not in service["metadata"]
    annotations = ingress["metadata"]["annotations"]
    assert annotations["alb.ingress.kubernetes.io/listen-ports"] == '[{"HTTP": 80}, {"HTTPS": 443}]'
    assert annotations["alb.ingress.kubernetes.io/ssl-redirect"] == "443"
    assert annotations["alb.ingress.kubernetes.io/certificate-arn"].startswith("arn:aws:acm:")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    (port,) = service["spec"]["ports"]
    assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": port["name"]}}


def test_the_service_monitor_selects_the_service_and_exists_only_in_its_overlay(base, overlay):
    monitored = overlay("servicemonitor")
    selector = monitored.one("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert selector and selector.items() <= monitored.one("Service")["metadata"]["labels"].items()
    assert not base.all("ServiceMonitor")


def test_the_base_has_no_state_of_its_own_and_says_so(base):
    """With STATE_URL unset, a pod refuses what needs state; tests/api/fibonacci.rs sees it do so."""
    assert not {"STATE_URL", "ALLOW_EMBEDDED_STORE"} & {variable["name"] for variable in base.container()["env"]}


def test_the_postgres_overlay_takes_the_url_from_a_secret_and_reaches_the_server(overlay):
    postgres = overlay("postgres")
    (url,) = (variable for variable in postgres.container()["env"] if variable["name"] == "STATE_URL")
    assert url["valueFrom"]["secretKeyRef"] == {"name": "math-service-state", "key": "url"}
    assert not postgres.all("Secret"), "a password is in no file"
    (rule,) = postgres.one("NetworkPolicy")["spec"]["egress"][1:]
    assert rule["ports"] == [{"protocol": "TCP", "port": 5432}]
    assert {peer["ipBlock"]["cidr"] for peer in rule["to"]} == {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}
    (volume,) = postgres.one("Deployment")["spec"]["template"]["spec"]["volumes"]
    (mount,) = postgres.container()["volumeMounts"]
    assert (mount["name"], volume["configMap"]["optional"]) == (volume["name"], True)
    # The path that the comment tells people to put into the URL.
    assert f"?sslrootcert={mount['mountPath']}/global-bundle.pem" in (ROOT / "k8s/components/postgres/kustomization.yaml").read_text()


def test_the_dynamodb_overlay_reaches_the_table_with_the_rights_of_its_service_account(overlay):
    dynamodb = overlay("dynamodb")
    table = re.fullmatch(r"dynamodb://([\w.-]+)\?region=([\w-]+)", dynamodb.env()["STATE_URL"])
    cluster = read_yaml("cluster-config.yaml")
    assert table[2] == cluster["metadata"]["region"]
    account = dynamodb.one("ServiceAccount")["metadata"]["name"]
    (association,) = (a for a in cluster["iam"]["podIdentityAssociations"] if a["serviceAccountName"] == account)
    assert association["namespace"] == "default", "where the manifests without a namespace go"
    (statement,) = (s for s in association["permissionPolicy"]["Statement"] if "dynamodb" in s["Resource"])
    prefix = statement["Resource"].removeprefix(f"arn:aws:dynamodb:{table[2]}:*:table/").removesuffix("*")
    assert prefix and table[1].startswith(prefix)
    assert set(statement["Action"]) == dynamodb_actions()
    https, agent = dynamodb.one("NetworkPolicy")["spec"]["egress"][1:]
    assert https == {"ports": [{"protocol": "TCP", "port": 443}]}
    assert agent == {"to": [{"ipBlock": {"cidr": "169.254.170.23/32"}}], "ports": [{"protocol": "TCP", "port": 80}]}


def test_the_jobs_overlay_names_the_cluster_that_it_is_for(overlay):
    jobs, cluster = overlay("jobs"), read_yaml("cluster-config.yaml")
    assert jobs.env()["EKS_CLUSTER_NAME"] == cluster["metadata"]["name"]
    assert jobs.env()["EKS_REGION"] == cluster["metadata"]["region"]


def mounted(manifests, name):
    volumes = {volume["name"]: volume for volume in manifests.one("Deployment")["spec"]["template"]["spec"]["volumes"]}
    mounts = {mount["name"]: mount for mount in manifests.container()["volumeMounts"]}
    assert volumes.keys() == mounts.keys()
    return volumes[name], mounts[name]


def test_the_jobs_overlay_brings_its_templates(overlay):
    jobs = overlay("jobs")
    volume, mount = mounted(jobs, "templates")
    (templates,) = jobs.all("ConfigMap")
    # The name follows from the content: another template makes other pods, because files are read at the start.
    assert re.fullmatch(r"math-service-templates-[0-9a-z]{10}", templates["metadata"]["name"])
    assert volume["configMap"]["name"] == templates["metadata"]["name"]
    assert jobs.env()["JOBS_TEMPLATES_DIR"] == mount["mountPath"]
    files = {path.name: path.read_text() for path in (ROOT / "k8s/components/jobs/templates").iterdir()}
    assert templates["data"] == files


def test_the_jobs_overlay_takes_tokens_from_a_secret_of_ones_own(overlay):
    jobs = overlay("jobs")
    assert not jobs.all("Secret")
    volume, mount = mounted(jobs, "tokens")
    assert (mount["name"], volume["secret"]) == (volume["name"], {"secretName": "math-service-tokens", "defaultMode": 0o444})
    assert "subPath" not in mount, "what is mounted by it never changes"
    # The key that the comment's command makes of the file's name.
    text = (ROOT / "k8s/components/jobs/kustomization.yaml").read_text()
    (key,) = re.findall(r"create secret generic math-service-tokens --from-file=(\S+)", text)
    assert jobs.env()["AUTH_TOKENS_FILE"] == f"{mount['mountPath']}/{key}"


def test_the_jobs_overlay_binds_its_rights_to_nothing_but_the_group_of_the_access_entry(overlay):
    jobs = overlay("jobs")
    role, binding = jobs.one("ClusterRole"), jobs.one("ClusterRoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert subject["kind"] == "Group"
    assert f"\ngroup={subject['name']}\n" in (ROOT / "scripts/jobs-lib.sh").read_text()
    # EKS refuses groups of these names.
    assert not subject["name"].startswith(("system:", "eks:", "aws:", "amazon:", "iam:"))
    granted = {(group, resource): rule["verbs"] for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"]}
    assert granted.keys() == {("", "namespaces"), ("batch", "jobs"), ("", "pods"), ("", "pods/log")}
    assert "*" not in sum(granted.values(), [])
    assert "watch" in granted["batch", "jobs"]
    role, binding = jobs.one("Role"), jobs.one("RoleBinding")
    assert (binding["roleRef"]["name"], binding["subjects"]) == (role["metadata"]["name"], [subject])
    named, unnamed = role["rules"]
    (lease,) = re.findall(r'NAME: &str = "([\w-]+)"', (ROOT / "src/jobs/lease.rs").read_text())
    assert (named["resourceNames"], named["verbs"], unnamed["verbs"]) == ([lease], ["get", "update"], ["create"])
    assert all((rule["apiGroups"], rule["resources"]) == (["coordination.k8s.io"], ["leases"]) for rule in role["rules"])
    # Beside the pods, wherever they are.
    (env,) = (e for e in jobs.container()["env"] if e["name"] == "JOBS_LEASE_NAMESPACE")
    assert env["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.namespace" and "namespace" not in role["metadata"]
    # Reading what a pod runs is one thing; nothing of it is changed, and no Secret is read.
    assert granted["", "pods"] == ["list", "watch"]


def test_the_jobs_overlay_reaches_aws_the_cluster_and_the_agent_of_pod_identity(overlay):
    https, agent = overlay("jobs").one("NetworkPolicy")["spec"]["egress"][1:]
    assert https == {"ports": [{"protocol": "TCP", "port": 443}]}
    assert agent == {"to": [{"ipBlock": {"cidr": "169.254.170.23/32"}}], "ports": [{"protocol": "TCP", "port": 80}]}


COMPONENTS = sorted(path.name for path in (ROOT / "k8s/components").iterdir())


def test_every_component_has_an_overlay_of_its_own():
    for name in COMPONENTS:
        assert read_yaml(f"k8s/components/{name}/kustomization.yaml")["kind"] == "Component"
        overlay = read_yaml(f"k8s/overlays/{name}/kustomization.yaml")
        assert (overlay["resources"], overlay["components"]) == (["../../base"], [f"../../components/{name}"])
        assert overlay.keys() == {"apiVersion", "kind", "resources", "components"}


def parts(manifests) -> dict[str, list]:
    """What components may add to, each piece by itself."""
    pod = manifests.one("Deployment")["spec"]["template"]["spec"]
    return {
        "documents": [(document["kind"], document["metadata"]["name"]) for document in manifests],
        "variables": manifests.container()["env"],
        "mounts": manifests.container().get("volumeMounts", []),
        "volumes": pod.get("volumes", []),
        # Two components may bring the same rule; twice is as good as once.
        "egress": manifests.one("NetworkPolicy")["spec"]["egress"],
    }


@pytest.mark.parametrize("combined, names", [
    (lambda: rendered("k8s/overlays/jobs-dynamodb"), ["jobs", "dynamodb"]),
    (readmes_own, ["alb", "jobs", "dynamodb"]),
])
def test_components_together_bring_what_each_of_them_brings(combined, names, overlay):
    together, each = parts(combined()), [parts(overlay(name)) for name in names]
    for what, found in together.items():
        brought = [piece for one in each for piece in one[what]]
        assert all(piece in found for piece in brought) and all(piece in brought for piece in found), what
        assert what == "egress" or all(found.count(piece) == 1 for piece in found), what


def test_the_overlay_of_ones_own_in_the_readme_is_behind_https_and_has_a_store():
    own = readmes_own()
    assert own.one("Service")["spec"]["type"] == "ClusterIP" and own.one("Ingress")
    assert own.env()["STATE_URL"].startswith("dynamodb://") and own.env()["EKS_CLUSTER_NAME"]


def test_without_a_store_jobs_have_no_past(overlay, tmp_path):
    """The README's words on `jobs` alone; tests/api/jobs sees Jobs created while the store is away."""
    token = "t" * 32
    (tmp_path / "tokens").write_text(f"{hashlib.sha256(token.encode()).hexdigest()} somebody jobs:read,audit:read\n")
    env = {**overlay("jobs").env(), "AUTH_TOKENS_FILE": str(tmp_path / "tokens"), "JOBS_TEMPLATES_DIR": str(ROOT / "k8s/components/jobs/templates")}
    # A pod is one that Kubernetes gave this.
    with running_server(**env, KUBERNETES_SERVICE_HOST="10.100.0.1") as (port, _):

        def status(method: str, path: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
            connection.request(method, path, headers={"authorization": f"Bearer {token}"} if path.startswith("/api") else {})
            return connection.getresponse().status

        for path in ("/api/v1/audit", "/api/v1/webhooks/dead-letters", "/api/v1/namespaces/jobs-a/jobs/one/history"):
            assert status("GET", path) == 503, path
        assert status("POST", "/fibonacci/next") == 503
        assert status("GET", "/api/v1/templates") == 200


def test_the_pods_may_ask_where_their_cluster_is_and_nothing_else_of_eks(overlay):
    cluster = read_yaml("cluster-config.yaml")
    account = overlay("jobs").one("ServiceAccount")["metadata"]["name"]
    (association,) = (a for a in cluster["iam"]["podIdentityAssociations"] if a["serviceAccountName"] == account)
    (statement,) = (s for s in association["permissionPolicy"]["Statement"] if ":eks:" in s["Resource"])
    region, name = cluster["metadata"]["region"], cluster["metadata"]["name"]
    assert statement == {"Effect": "Allow", "Action": "eks:DescribeCluster", "Resource": f"arn:aws:eks:{region}:*:cluster/{name}"}
    addons = {addon["name"] for addon in cluster["addons"]}
    assert "eks-pod-identity-agent" in addons and cluster["accessConfig"]["authenticationMode"] == "API"


def test_what_the_balancer_says_of_the_client_is_believed_wherever_one_stands_in_front(manifests):
    trusted = [ipaddress.ip_network(block) for block in manifests.env().get("TRUSTED_PROXIES", "").split(",") if block]
    if manifests.one("Service")["spec"]["type"] == "NodePort":
        assert not trusted, "there is no balancer"
        return
    # eksctl's, unless cluster-config.yaml says otherwise, and Terraform's.
    networks = [read_yaml("cluster-config.yaml").get("vpc", {}).get("cidr", "192.168.0.0/16")]
    for file in (ROOT / "terraform/config").glob("*.tfvars"):
        networks += re.findall(r'^vpc_cidr\s*=\s*"(.+)"$', file.read_text(), re.MULTILINE)
    assert len(networks) == 3
    for network in map(ipaddress.ip_network, networks):
        assert any(network.subnet_of(block) for block in trusted), f"a balancer in {network}"
    assert all(block.is_private for block in trusted), "strangers are not believed"
