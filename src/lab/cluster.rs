//! Nodes: what fits on them, and how they come and go.
//!
//! Sources: what a node keeps for itself is the bootstrap of <https://github.com/awslabs/amazon-eks-ami> (memory: 255 MiB and
//! 11 for each pod that it can hold; CPU: 6 % of the first core, 1 % of the second, 0.5 % of the next two, 0.25 % of the
//! rest) and the kubelet's eviction threshold of 100 MiB; pods on a node: that repository's `eni-max-pods.txt`. The
//! autoscaler: <https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md> (a look every 10 s; a node
//! goes when its pods request less than half of it and fit elsewhere for 10 minutes, and not within 10 minutes of an
//! addition).

/// Seconds between two looks of the node autoscaler.
pub const SCAN_SECONDS: u64 = 10;
const UNNEEDED_SECONDS: u64 = 600;
/// CPU and memory that EKS's own pods request on each node: vpc-cni 50m, kube-proxy 100m.
const NODE_AGENTS: Room = Room { cpu_milli: 150, memory_mib: 0, pods: 3 };
/// Pods of the cluster as a whole: two each of coredns and metrics-server, and cluster-autoscaler, as
/// `k8s/cluster-autoscaler.yaml` has it.
const CLUSTER_PODS: [Room; 5] = [
    Room { cpu_milli: 100, memory_mib: 70, pods: 1 },
    Room { cpu_milli: 100, memory_mib: 70, pods: 1 },
    Room { cpu_milli: 100, memory_mib: 200, pods: 1 },
    Room { cpu_milli: 100, memory_mib: 200, pods: 1 },
    Room { cpu_milli: 100, memory_mib: 600, pods: 1 },
];

/// CPU, memory and places for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// MiB.
    pub memory_mib: i64,
    /// Pods.
    pub pods: i64,
}

impl Room {
    fn holds(&self, other: &Self) -> bool {
        self.cpu_milli >= other.cpu_milli && self.memory_mib >= other.memory_mib && self.pods >= other.pods
    }

    fn take(&mut self, other: &Self) {
        self.cpu_milli -= other.cpu_milli;
        self.memory_mib -= other.memory_mib;
        self.pods -= other.pods;
    }

    fn give(&mut self, other: &Self) {
        self.cpu_milli += other.cpu_milli;
        self.memory_mib += other.memory_mib;
        self.pods += other.pods;
    }

    /// How many of another fit.
    fn fits(&self, other: &Self) -> i64 {
        let times = |have: i64, need: i64| if need > 0 { have / need } else { i64::MAX };
        times(self.cpu_milli, other.cpu_milli)
            .min(times(self.memory_mib, other.memory_mib))
            .min(times(self.pods, other.pods))
            .max(0)
    }
}

/// An EC2 instance type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    /// `t3.large`.
    pub name: &'static str,
    vcpus: i64,
    memory_mib: i64,
    pods: i64,
}

const fn instance(name: &'static str, vcpus: i64, memory_gib: i64, pods: i64) -> Instance {
    Instance { name, vcpus, memory_mib: memory_gib * 1024, pods }
}

/// Those that there are prices of.
const INSTANCES: [Instance; 9] = [
    instance("t3.small", 2, 2, 11),
    instance("t3.medium", 2, 4, 17),
    instance("t3.large", 2, 8, 35),
    instance("t3.xlarge", 4, 16, 58),
    instance("t3.2xlarge", 8, 32, 58),
    instance("m5.large", 2, 8, 29),
    instance("m5.xlarge", 4, 16, 58),
    instance("c5.large", 2, 4, 29),
    instance("c5.xlarge", 4, 8, 58),
];

impl Instance {
    /// The type of that name.
    ///
    /// # Errors
    /// That it is not known here, and which are.
    pub fn of(name: &str) -> Result<Self, String> {
        INSTANCES.into_iter().find(|instance| instance.name == name).ok_or_else(|| {
            let known: Vec<&str> = INSTANCES.iter().map(|instance| instance.name).collect();
            format!("{name:?} is no instance type that the lab knows: it knows {}", known.join(", "))
        })
    }

    /// Cores.
    #[must_use]
    pub fn cores(&self) -> f64 {
        self.vcpus as f64
    }

    /// What pods may request of it.
    #[must_use]
    pub fn allocatable(&self) -> Room {
        let kept = 60
            + 10 * i64::from(self.vcpus > 1)
            + 5 * (self.vcpus - 2).clamp(0, 2)
            + 5 * (self.vcpus - 4).max(0) / 2;
        Room {
            cpu_milli: self.vcpus * 1000 - kept,
            memory_mib: self.memory_mib - (255 + 11 * self.pods) - 100,
            pods: self.pods,
        }
    }

    fn fresh(&self) -> Room {
        let mut room = self.allocatable();
        room.take(&NODE_AGENTS);
        room
    }
}

/// The cluster as its configuration has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// The node group's.
    pub instance: Instance,
    /// Nodes at the start.
    pub nodes: u32,
    /// The group's bounds.
    pub min_nodes: u32,
    /// See above.
    pub max_nodes: u32,
    /// Whether something adds and removes nodes within the bounds.
    pub is_autoscaled: bool,
    /// From the decision to a node that takes pods.
    pub node_start_seconds: u64,
    /// Disk of each node, GB.
    pub volume_gb: u32,
    /// NAT gateways: eksctl makes one unless told otherwise.
    pub nat_gateways: u32,
    /// Whether nodes have public addresses: eksctl's default.
    pub has_public_nodes: bool,
    /// The minor version of Kubernetes.
    pub minor: u32,
    /// Whether that version is in extended support.
    pub is_extended: bool,
}

impl Cluster {
    /// # Errors
    /// Bounds that contradict each other or are absurd.
    pub fn check(&self) -> Result<(), String> {
        if self.min_nodes > self.max_nodes || self.max_nodes > 10_000 || self.nodes > 10_000 {
            return Err(format!(
                "{} to {} nodes are no bounds for a node group",
                self.min_nodes, self.max_nodes
            ));
        }
        if self.node_start_seconds > 86_400 {
            return Err("a node starts within a day".into());
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Node {
    free: Room,
    /// Pods of the workload on it.
    pods: i64,
    ready_at: u64,
    idle_since: Option<u64>,
}

/// The nodes of a run.
#[derive(Debug)]
pub(super) struct Nodes {
    cluster: Cluster,
    pod: Room,
    nodes: Vec<Option<Node>>,
    alive: u32,
    last_added: Option<u64>,
    /// The next second at which one becomes ready.
    next_ready: Option<u64>,
}

/// What a look of the node autoscaler changed.
pub(super) enum Change {
    Added {
        pending: i64,
    },
    /// The index of a node that goes, and its pods with it.
    Removed {
        node: usize,
        seconds: u64,
    },
}

impl Nodes {
    pub(super) fn new(cluster: &Cluster, pod: Room) -> Self {
        let count = cluster.nodes.clamp(cluster.min_nodes, cluster.max_nodes);
        let mut nodes = Self {
            cluster: cluster.clone(),
            pod,
            nodes: Vec::new(),
            alive: 0,
            last_added: None,
            next_ready: None,
        };
        (0..count).for_each(|_| nodes.add(0));
        for (index, pod) in CLUSTER_PODS.iter().enumerate() {
            let place = index % nodes.nodes.len().max(1);
            if let Some(Some(node)) = nodes.nodes.get_mut(place) {
                node.free.take(pod);
            }
        }
        nodes
    }

    fn add(&mut self, ready_at: u64) {
        let node = Node { free: self.cluster.instance.fresh(), pods: 0, ready_at, idle_since: None };
        match self.nodes.iter().position(Option::is_none) {
            Some(index) => self.nodes[index] = Some(node),
            None => self.nodes.push(Some(node)),
        }
        self.alive += 1;
    }

    pub(super) fn count(&self) -> u32 {
        self.alive
    }

    /// Whether a node has become ready since the last time that this was asked.
    pub(super) fn has_new(&mut self, now: u64) -> bool {
        let is_due = self.next_ready.is_some_and(|at| at <= now);
        if is_due {
            let later = self.nodes.iter().flatten().map(|node| node.ready_at).filter(|at| *at > now);
            self.next_ready = later.min();
        }
        is_due
    }

    /// Finds a place for a pod: the node with the most CPU left, as the scheduler's default spreads them.
    pub(super) fn place(&mut self, now: u64) -> Option<usize> {
        let fitting = self.nodes.iter().enumerate().filter_map(|(index, node)| {
            node.filter(|node| node.ready_at <= now && node.free.holds(&self.pod)).map(|node| (index, node))
        });
        let (index, _) = fitting.max_by_key(|(index, node)| (node.free.cpu_milli, usize::MAX - index))?;
        let node = self.nodes[index].as_mut()?;
        node.free.take(&self.pod);
        node.pods += 1;
        node.idle_since = None;
        Some(index)
    }

    pub(super) fn leave(&mut self, index: usize) {
        if let Some(Some(node)) = self.nodes.get_mut(index) {
            node.free.give(&self.pod);
            node.pods -= 1;
        }
    }

    /// Cores for each pod of the most crowded node: requests are spread evenly over pods, so that is what each gets.
    pub(super) fn cores_per_pod(&self) -> f64 {
        let most = self.nodes.iter().flatten().map(|node| node.pods).max().unwrap_or(0).max(1);
        self.cluster.instance.cores() / most as f64
    }

    /// A look of the node autoscaler, `pending` pods waiting for a place.
    pub(super) fn scan(&mut self, now: u64, pending: i64) -> Option<Change> {
        if !self.cluster.is_autoscaled {
            return None;
        }
        if pending > 0 {
            return self.grow(now, pending);
        }
        if self.last_added.is_some_and(|at| now < at + UNNEEDED_SECONDS) {
            return None;
        }
        self.shrink(now)
    }

    fn grow(&mut self, now: u64, pending: i64) -> Option<Change> {
        let coming = self.nodes.iter().flatten().filter(|node| node.ready_at > now);
        let expected: i64 = coming.map(|node| node.free.fits(&self.pod)).sum();
        let each = self.cluster.instance.fresh().fits(&self.pod);
        let missing = pending - expected;
        if missing <= 0 || each == 0 {
            return None;
        }
        let wanted = (missing as u64).div_ceil(each as u64);
        let nodes = wanted.min(u64::from(self.cluster.max_nodes.saturating_sub(self.alive))) as u32;
        let ready_at = now + self.cluster.node_start_seconds;
        (0..nodes).for_each(|_| self.add(ready_at));
        if nodes == 0 {
            return None;
        }
        self.last_added = Some(now);
        self.next_ready = Some(self.next_ready.map_or(ready_at, |at| at.min(ready_at)));
        Some(Change::Added { pending })
    }

    /// One node at a time, as the autoscaler drains them; empty ones first. Nodes with the cluster's own pods stay.
    fn shrink(&mut self, now: u64) -> Option<Change> {
        if self.alive <= self.cluster.min_nodes {
            return None;
        }
        let allocatable = self.cluster.instance.allocatable();
        let fresh = self.cluster.instance.fresh();
        let elsewhere: i64 = self.nodes.iter().flatten().map(|node| node.free.fits(&self.pod)).sum();
        let mut going = None;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let Some(node) = node.as_mut().filter(|node| node.ready_at <= now) else { continue };
            let is_ours = node.free.cpu_milli + node.pods * self.pod.cpu_milli == fresh.cpu_milli;
            let requested = allocatable.cpu_milli - node.free.cpu_milli;
            let is_unneeded = is_ours
                && 2 * requested < allocatable.cpu_milli
                && elsewhere - node.free.fits(&self.pod) >= node.pods;
            if !is_unneeded {
                node.idle_since = None;
                continue;
            }
            let since = *node.idle_since.get_or_insert(now);
            if now >= since + UNNEEDED_SECONDS && going.is_none_or(|(_, pods, _)| node.pods < pods) {
                going = Some((index, node.pods, now - since));
            }
        }
        let (node, _, seconds) = going?;
        self.nodes[node] = None;
        self.alive -= 1;
        Some(Change::Removed { node, seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        Cluster {
            instance: Instance::of("t3.large").unwrap(),
            nodes: 2,
            min_nodes: 2,
            max_nodes: 4,
            is_autoscaled: true,
            node_start_seconds: 90,
            volume_gb: 20,
            nat_gateways: 1,
            has_public_nodes: true,
            minor: 35,
            is_extended: false,
        }
    }

    const CORE: Room = Room { cpu_milli: 1000, memory_mib: 2048, pods: 1 };

    #[test]
    fn a_t3_large_has_1930m_for_pods() {
        let room = Instance::of("t3.large").unwrap().allocatable();
        assert_eq!((room.cpu_milli, room.pods), (1930, 35));
        assert_eq!(Instance::of("t3.xlarge").unwrap().allocatable().cpu_milli, 3920);
        assert_eq!(Instance::of("t3.2xlarge").unwrap().allocatable().cpu_milli, 7910);
        assert!(Instance::of("t9.huge").unwrap_err().contains("t3.large"));
    }

    #[test]
    fn one_pod_of_a_core_fits_beside_eks_s_own() {
        let mut nodes = Nodes::new(&cluster(), CORE);
        assert_eq!([nodes.place(0), nodes.place(0), nodes.place(0)], [Some(1), Some(0), None]);
    }

    #[test]
    fn pods_without_a_place_bring_nodes_and_those_take_their_time() {
        let mut nodes = Nodes::new(&cluster(), CORE);
        while nodes.place(0).is_some() {}
        let Some(Change::Added { pending: 3 }) = nodes.scan(10, 3) else { panic!() };
        assert!(nodes.scan(20, 2).is_none(), "those that are coming are enough, and no more may come");
        assert_eq!((nodes.count(), nodes.place(99)), (4, None));
        assert!(!nodes.has_new(99) && nodes.has_new(100) && !nodes.has_new(101));
        assert_eq!([nodes.place(100), nodes.place(100), nodes.place(100)], [Some(2), Some(3), None]);
    }

    #[test]
    fn a_node_that_nobody_needs_goes_after_ten_minutes() {
        let mut nodes = Nodes::new(&cluster(), CORE);
        while nodes.place(0).is_some() {}
        nodes.scan(10, 1);
        nodes.place(100);
        nodes.leave(2);
        let gone: Vec<u64> =
            (0..400).map(|scan| scan * 10).filter(|now| nodes.scan(*now, 0).is_some()).collect();
        // Ten minutes after the addition the watch begins, and ten more it lasts.
        assert_eq!(gone, [1210]);
        assert_eq!(nodes.count(), 3 - 1);
    }
}
