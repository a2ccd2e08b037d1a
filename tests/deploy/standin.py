"""Stands in for docker, kubectl, aws, eksctl, minikube, kind, sam, terraform, locust, curl and git on the PATH of the
scripts.

It records each call, keeps what the call would have made in a file beside it, and answers as the real program does. A
test can make any call fail or hang. It runs under whichever of those names it is linked as.
"""

import json
import os
import pathlib
import re
import signal
import sys
import time

FOLDER = pathlib.Path(os.environ["STANDIN"])
STATE = json.loads((FOLDER / "state.json").read_text())
TOOL, ARGS = os.path.basename(sys.argv[0]), sys.argv[1:]
CALL = " ".join([TOOL, *ARGS])
CLUSTER_STACK, NODES_STACK = "eksctl-math-service-cluster-cluster", "eksctl-math-service-cluster-nodegroup-standard-workers"
ADDONS = "coredns\teks-pod-identity-agent\tkube-proxy\tmetrics-server\tvpc-cni"
HOSTNAME = "balancer-1.eu-west-2.elb.amazonaws.com"


def keep(**changes):
    STATE.update(changes)
    # In one move: another stand-in, in the background or in the same pipe, may read it at this moment.
    written = FOLDER / f"state.json.{os.getpid()}"
    written.write_text(json.dumps(STATE))
    written.replace(FOLDER / "state.json")


def refuse(message: str, code: int = 255):
    print(message, file=sys.stderr)
    sys.exit(code)


def missing(code: str, operation: str):
    refuse(f"An error occurred ({code}) when calling the {operation} operation: not found")


def option(name: str, default: str = "") -> str:
    return ARGS[ARGS.index(name) + 1] if name in ARGS else default


def docker():
    if ARGS[0] == "login":
        sys.stdin.read()
    elif ARGS[:2] == ["info", "--format"]:
        print(STATE["docker_os"])
    elif ARGS[:2] == ["image", "inspect"]:
        print("sha256:" + STATE["image_id"])
    elif ARGS[0] == "push":
        keep(pushed=[*STATE["pushed"], ARGS[1].split(":")[-1]])


def uname():
    print(STATE["system"])


def cargo():
    """Only has to be there."""


rustup = cargo


def git():
    if ARGS[0] == "status":
        print(STATE["changed_files"], end="")
    else:
        print(STATE["commit"][:7] if "--short" in ARGS else STATE["commit"])


def curl():
    if ARGS[-1].endswith("/livez"):
        print('{"status":"ok"}', end="")
    elif ARGS[-1].endswith("/health"):
        print(json.dumps({"status": STATE["health"], "store": {"kind": "dynamodb"}}, separators=(",", ":")), end="")
    elif "accept: application/json" in ARGS:
        print(json.dumps({"name": "math-service", "version": STATE["version"], "target": "container"}, separators=(",", ":")))
    else:
        print(STATE["answer"], end="")


def kind():
    if ARGS[:2] == ["create", "cluster"]:
        keep(kind=True)
    elif ARGS[:2] == ["delete", "cluster"]:
        keep(kind=False)


def locust():
    """Loads until SIGTERM, and then says what came of it, as the real one does."""
    failures = STATE["failures"]

    def report(*_):
        rows = ["Type,Name,Request Count,Failure Count,Median Response Time", f"POST,/,{STATE['requests']},{failures},1", f",Aggregated,{STATE['requests']},{failures},1"]
        pathlib.Path(option("--csv") + "_stats.csv").write_text("\n".join(rows) + "\n")
        sys.exit(1 if failures else 0)

    signal.signal(signal.SIGTERM, report)
    pathlib.Path(option("--csv") + "_stats.csv").write_text("Type,Name,Request Count,Failure Count,Median Response Time\n")
    time.sleep(600)


def minikube():
    command = ARGS[2:]
    if command == ["status"]:
        sys.exit(0 if STATE["minikube"] else 85)
    elif command[0] == "start":
        keep(minikube=True)
    elif command[0] == "delete":
        keep(minikube=False, loaded=[])
    elif command == ["image", "ls"]:
        print("\n".join(f"docker.io/library/{name}" for name in STATE["loaded"]))
    elif command[:2] == ["image", "load"]:
        keep(loaded=[*STATE["loaded"], command[2]])
    elif command == ["ip"]:
        print("192.168.49.2")


def eksctl():
    stacks = STATE["stacks"]
    if ARGS[:2] == ["create", "cluster"]:
        if CLUSTER_STACK in stacks:
            refuse("Error: creating CloudFormation stack: AlreadyExistsException", 1)
        keep(stacks={CLUSTER_STACK: "CREATE_COMPLETE", NODES_STACK: "CREATE_COMPLETE"}, cluster="ACTIVE", addons=ADDONS, rights=True,
             service_rights=True, nodes=2)
    elif ARGS[:2] == ["create", "addon"]:
        keep(addons=ADDONS)
    elif ARGS[:2] == ["create", "nodegroup"]:
        keep(stacks={**stacks, NODES_STACK: "CREATE_COMPLETE"}, nodes=2)
    elif ARGS[:2] == ["create", "podidentityassociation"]:
        if STATE["rights"] and STATE["service_rights"]:
            refuse("Error: association already exists", 1)
        keep(rights=True, service_rights=True)
    elif ARGS[:2] == ["update", "podidentityassociation"] and not STATE["service_rights"]:
        refuse("Error: pod identity association does not exist", 1)
    elif ARGS[:2] == ["scale", "nodegroup"]:
        keep(nodes=int(option("--nodes")), min_nodes=int(option("--nodes-min")))
    elif ARGS[:2] == ["delete", "cluster"]:
        if STATE["balancer"]:
            refuse("Error: the VPC has dependencies and cannot be deleted", 1)
        keep(stacks={}, cluster=None, nodes=0, rights=False, service_rights=False, addons="", applied=[], entries={})


def aws():
    command = ARGS[:2]
    if command == ["sts", "get-caller-identity"]:
        print("111122223333")
    elif command == ["cloudformation", "describe-stacks"]:
        name = option("--stack-name")
        if name not in STATE["stacks"]:
            refuse(f"An error occurred (ValidationError) when calling the DescribeStacks operation: Stack with id {name} does not exist")
        if "JobsRole" in option("--query"):
            asked = re.search(r"contains\(OutputValue, '(.*?)'\)", option("--query"))[1]
            output = f"{STATE['function_for']} arn:aws:iam::111122223333:role/function"
            print(output if STATE["function_for"] and asked in output else "")
            return
        print("https://api.example/" if "Outputs" in option("--query") else STATE["stacks"][name])
        if STATE["stacks"][name] in STATE["settles"]:
            keep(stacks={**STATE["stacks"], name: STATE["settles"][STATE["stacks"][name]]})
    elif command == ["cloudformation", "wait"]:
        keep(stacks={**STATE["stacks"], option("--stack-name"): "CREATE_COMPLETE"}, cluster="ACTIVE")
    elif command == ["eks", "describe-cluster"]:
        asked = STATE["cluster"] if option("--query") == "cluster.status" else f"{STATE['cluster']}\tvpc-1"
        print(asked) if STATE["cluster"] else missing("ResourceNotFoundException", "DescribeCluster")
    elif command == ["eks", "list-addons"]:
        print(STATE["addons"])
    elif command == ["eks", "describe-nodegroup"]:
        print(STATE["nodes"] if "desiredSize" in option("--query") else STATE["max_nodes"])
    elif command == ["eks", "update-nodegroup-config"]:
        keep(max_nodes=int(option("--scaling-config").removeprefix("maxSize=")))
    elif command == ["eks", "list-pod-identity-associations"]:
        theirs = STATE["service_rights" if option("--service-account") == "math-service" else "rights"]
        print("a-1" if theirs else "")
    elif command == ["eks", "describe-pod-identity-association"]:
        print("arn:aws:iam::111122223333:role/eksctl-pods")
    elif command == ["eks", "describe-access-entry"]:
        groups = STATE["entries"].get(option("--principal-arn"))
        print(groups) if groups else missing("ResourceNotFoundException", "DescribeAccessEntry")
    elif command in (["eks", "create-access-entry"], ["eks", "update-access-entry"]):
        if (option("--principal-arn") in STATE["entries"]) != (command[1] == "update-access-entry"):
            refuse("An error occurred (ResourceInUseException or ResourceNotFoundException)")
        keep(entries={**STATE["entries"], option("--principal-arn"): option("--kubernetes-groups")})
    elif command == ["eks", "delete-access-entry"]:
        keep(entries={arn: groups for arn, groups in STATE["entries"].items() if arn != option("--principal-arn")})
    elif command == ["ecr", "describe-repositories"]:
        print("{}") if STATE["repository"] else missing("RepositoryNotFoundException", "DescribeRepositories")
    elif command == ["ecr", "create-repository"]:
        keep(repository=True)
    elif command == ["ecr", "delete-repository"]:
        keep(repository=False, pushed=[])
    elif command == ["ecr", "describe-images"]:
        tag = option("--image-ids").removeprefix("imageTag=")
        print("{}") if tag in STATE["pushed"] else missing("ImageNotFoundException", "DescribeImages")
    elif command == ["secretsmanager", "get-secret-value"]:
        print(json.dumps({"username": "administrator", "password": "Kept~Secret#1"}))
    elif command == ["ecr", "list-images"]:
        print("sha256:1" if STATE["pushed"] else "None") if STATE["repository"] else missing("RepositoryNotFoundException", "ListImages")
    elif command == ["s3api", "head-bucket"]:
        if not STATE["bucket"]:
            refuse("An error occurred (404) when calling the HeadBucket operation: Not Found", 254)
    elif command == ["ecr", "get-login-password"]:
        print("password")
    elif command == ["elb", "describe-load-balancers"]:
        # A balancer goes some time after its Service.
        print("a0b1c2" if STATE["balancer"] else "")
        if STATE["balancer"] == "going":
            keep(balancer="")


def sam():
    if ARGS[0] == "deploy":
        keep(stacks={**STATE["stacks"], "math-service": "CREATE_COMPLETE"})
    elif ARGS[0] == "delete":
        keep(stacks={name: state for name, state in STATE["stacks"].items() if name != "math-service"})


def terraform():
    folder, command = pathlib.Path(ARGS[0].removeprefix("-chdir=")), ARGS[1]
    if folder.name == "bootstrap":
        local = folder / "terraform.tfstate"
        if command == "apply":
            keep(bucket=True)
            local.write_text("{}") if (folder / "backend_override.tf").exists() else None
        return
    if command == "plan":
        (out,) = (argument.removeprefix("-out=") for argument in ARGS if argument.startswith("-out="))
        (folder / out).write_text("a plan")
    elif command == "apply":
        keep(environment="there", cluster="ACTIVE", repository=True)
    elif command == "destroy":
        keep(environment="", cluster=None, repository=False)
    elif command == "state" and STATE["environment"]:
        print("aws_ecr_repository.service[0]\naws_vpc.main")
    elif command == "output":
        values = {"cluster_name": "math-service-dev", "kubectl_command": "aws eks update-kubeconfig --name math-service-dev", "region": "eu-west-1", "vpc_id": "vpc-1"}
        values |= {"registry_url": "111122223333.dkr.ecr.eu-west-1.amazonaws.com/my-math-service", "state_url": "dynamodb://math-service-dev-state?region=eu-west-1"}
        if STATE["database"]:
            values |= {"database_host": "db.example", "database_name": "math_service", "database_secret": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:rds!db-1"}
        answers = {name: {"sensitive": False, "type": "string", "value": value} for name, value in values.items()}
        print(json.dumps(answers if STATE["environment"] else {}, indent=2))


def jq():
    print(json.load(sys.stdin)[ARGS[-1].removeprefix(".")])


def openssl():
    print("0123456789abcdef" * 4)


def kubectl():
    if ARGS[0] == "kustomize":
        print((FOLDER / "rendered" / pathlib.Path(ARGS[1]).name).read_text())
        return
    command = [a for i, a in enumerate(ARGS) if a not in ("--context", "--request-timeout") and ARGS[i - 1] not in ("--context", "--request-timeout")]
    words = " ".join(command)
    if command[0] == "apply":
        text = sys.stdin.read() if command[-1] == "-" else ""
        (FOLDER / "applied.yaml").write_text(text) if text else None
        if text and STATE["revision"] is not None:
            keep(revision=STATE["revision"] + STATE["changes"])
        if "type: LoadBalancer" in text and STATE["balancer_comes"]:
            keep(balancer="there")
        if "autoscaler" in words:
            keep(autoscaler=1)
    elif command[0] == "exec":
        (FOLDER / "exec.txt").write_text(sys.stdin.read())
    elif words.startswith("create configmap"):
        sys.stdin.read()
        print("kind: ConfigMap")
    elif words.startswith("scale deployment.apps/cluster-autoscaler"):
        keep(autoscaler=int(option("--replicas")))
    elif words.startswith("get deployment cluster-autoscaler"):
        print("deployment.apps/cluster-autoscaler" if STATE["autoscaler"] is not None else "", end="")
    elif words.startswith("get pods --namespace kube-system"):
        print("pod/cluster-autoscaler-1\n" * (STATE["autoscaler"] or 0), end="")
    elif words.startswith("get nodes --output name"):
        print("node/n\n" * STATE["nodes"], end="")
    elif words.startswith("get nodes --output") and "InternalIP" in words:
        print("172.18.0.2", end="")
    elif words.startswith("get nodes --output") and "architecture" in words:
        print("amd64", end="")
    elif words.startswith("get nodes --output"):
        print("True\n" * STATE["nodes"], end="")
    elif words.startswith("get service") and "hostname" in words:
        print(HOSTNAME if STATE["balancer"] else "", end="")
    elif words.startswith("get service") and "nodePort" in words:
        print("30080", end="")
    elif words.startswith("config current-context"):
        print("somewhere")
    elif words.startswith("get deployment/") and "revision" in words:
        print(STATE["revision"] or "", end="")
    elif words.startswith("rollout undo"):
        keep(revision=STATE["revision"] + 1, version=STATE["former_version"], answer='{"result":15.0}', health="healthy")
    elif words.startswith("get hpa"):
        print(STATE["wanted"], end="")
    elif words.startswith("delete service") and STATE["balancer"]:
        keep(balancer="going" if STATE["balancer_goes"] else "there")


with (FOLDER / "calls.log").open("a") as log:
    log.write(CALL + "\n")
for rule in STATE["rules"]:
    if re.search(rule["call"], CALL):
        keep(**rule["then"])
        if rule["hang"]:
            # As most programs, it ends at a signal.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            (FOLDER / "hanging").touch()
            time.sleep(600)
        refuse(rule["says"], rule["code"])
globals()[TOOL]()
