//! What may be named: namespaces, Jobs and images. No name reaches the cluster unchecked.

use std::{fmt, str::FromStr};

/// Longest DNS-1123 label, and longest value of a label: a Job's name becomes one on its pods.
pub const LONGEST_NAME: usize = 63;

/// A namespace's name: lower-case letters, digits and hyphens, none of those at either end (RFC 1123, a DNS label).
#[must_use]
pub fn is_label(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A Job's name: DNS labels joined by dots, short enough for the label that its pods carry.
#[must_use]
pub fn is_job_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME && name.split('.').all(is_label)
}

/// What [`is_label`] asks for, in words.
pub const LABEL_RULE: &str =
    "must be 1 to 63 lower-case letters, digits and hyphens, without a hyphen at either end (DNS-1123)";

/// What [`is_job_name`] asks for, in words.
pub const JOB_NAME_RULE: &str = "must be 1 to 63 lower-case letters, digits, hyphens and dots, and begin and end with a letter or a digit, as must what stands around each dot (DNS-1123)";

/// Which namespaces may be touched at all: `JOBS_NAMESPACES`.
///
/// Never `kube-*`, whatever it says, and `default` only where it is named in full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    /// What stands before the `*`.
    Prefix(String),
}

impl Namespaces {
    /// Whether this namespace is one of them.
    #[must_use]
    pub fn permit(&self, name: &str) -> bool {
        let is_listed = |pattern: &Pattern| match pattern {
            Pattern::Exact(exact) => exact == name,
            Pattern::Prefix(prefix) => name != "default" && name.starts_with(prefix),
        };
        is_label(name) && !name.starts_with(RESERVED) && self.0.iter().any(is_listed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Kubernetes keeps these names for itself.
const RESERVED: &str = "kube-";

impl FromStr for Namespaces {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        items(text).map(namespace_pattern).collect::<Result<_, _>>().map(Self)
    }
}

fn namespace_pattern(item: &str) -> Result<Pattern, String> {
    let prefix = item.strip_suffix('*');
    // What a name may begin with is a name, once something follows it.
    let is_name = prefix.map_or_else(|| is_label(item), |prefix| is_label(&format!("{prefix}x")));
    if !is_name {
        return Err(
            "names of namespaces, comma-separated, each with an optional * at its end, such as jobs-*,batch"
                .to_owned(),
        );
    }
    if item.starts_with(RESERVED) {
        return Err("no kube-* namespaces: those are Kubernetes' own".to_owned());
    }
    Ok(prefix.map_or_else(|| Pattern::Exact(item.to_owned()), |prefix| Pattern::Prefix(prefix.to_owned())))
}

/// Which images may run: `JOBS_IMAGES`. An item is a repository, whatever its tag or digest, or all below a path (`…/*`), or
/// all there are (`*`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images(Vec<ImagePattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum ImagePattern {
    Any,
    Repository(String),
    /// Ends with a slash: `registry.example.com/` is no beginning of `registry.example.com.evil/…`.
    Below(String),
}

impl Images {
    /// Whether a container may run this image.
    ///
    /// # Errors
    /// What is wrong with it, to be read after the field's name.
    pub fn permit(&self, image: &str) -> Result<(), &'static str> {
        let repository = repository(image).ok_or("is no well-formed image reference")?;
        let is_listed = |pattern: &ImagePattern| match pattern {
            ImagePattern::Any => true,
            ImagePattern::Repository(exact) => *exact == repository,
            ImagePattern::Below(prefix) => repository.starts_with(prefix),
        };
        if self.0.iter().any(is_listed) { Ok(()) } else { Err("is an image that JOBS_IMAGES does not allow") }
    }
}

impl FromStr for Images {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            "repositories without tag, comma-separated, or all below a path, such as public.ecr.aws/team/*,busybox, or * for any image".to_owned()
        };
        items(text).map(|item| image_pattern(item).ok_or_else(expected)).collect::<Result<_, _>>().map(Self)
    }
}

fn image_pattern(item: &str) -> Option<ImagePattern> {
    if item == "*" {
        return Some(ImagePattern::Any);
    }
    let is_untagged = |path: &str| path.rsplit('/').next().is_some_and(|last| !last.contains([':', '@']));
    match item.strip_suffix("/*") {
        Some(path) => {
            // Any repository below the path shows how the path is read.
            let below = repository(&format!("{path}/x"))?;
            Some(ImagePattern::Below(below.strip_suffix('x')?.to_owned()))
        }
        None if is_untagged(item) => repository(item).map(ImagePattern::Repository),
        None => None,
    }
}

/// The repository of an image reference in full, as the container runtimes read it: `busybox:1` is
/// `docker.io/library/busybox`. `None` for what they would refuse, or might read in another way.
/// (The grammar of references: `distribution/reference`.)
fn repository(image: &str) -> Option<String> {
    let (named, digest) =
        image.split_once('@').map_or((image, None), |(named, digest)| (named, Some(digest)));
    let last_slash = named.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match named[last_slash..].split_once(':') {
        Some((last, tag)) => (&named[..last_slash + last.len()], Some(tag)),
        None => (named, None),
    };
    if !tag.is_none_or(is_tag) || !digest.is_none_or(is_digest) || name.len() > 255 {
        return None;
    }
    let (host, path) = match name.split_once('/') {
        Some((first, rest)) if is_host_like(first) => (first, rest),
        _ => ("docker.io", name),
    };
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    if !is_host(host) || !path.split('/').all(is_path_component) {
        return None;
    }
    let library = if host == "docker.io" && !path.contains('/') { "library/" } else { "" };
    Some(format!("{host}/{library}{path}"))
}

/// A first component is a registry when no user of Docker Hub could have that name.
fn is_host_like(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_port =
        |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Letters and digits, with `.`, `_`, `__` or hyphens between them.
fn is_path_component(component: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separators = component.split(|c: char| c.is_ascii() && is_alphanumeric(c as u8));
    let is_separator =
        |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    component.bytes().next().is_some_and(is_alphanumeric)
        && component.bytes().next_back().is_some_and(is_alphanumeric)
        && separators.all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

fn is_digest(digest: &str) -> bool {
    let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    let hex = hex.or_else(|| digest.strip_prefix("sha512:").filter(|hex| hex.len() == 128));
    hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pattern) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match pattern {
                Pattern::Exact(name) => write!(f, "{comma}{name}")?,
                Pattern::Prefix(prefix) => write!(f, "{comma}{prefix}*")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "0", "a-b", "team-1", &"x".repeat(63)] {
            assert!(is_label(good) && is_job_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "a b", "gr\u{fc}n", "..", "a\n", &"x".repeat(64)] {
            assert!(!is_label(bad) && !is_job_name(bad), "{bad:?}");
        }
        assert!(is_job_name("a.b-1.c") && !is_label("a.b"));
        assert!(!is_job_name("a..b") && !is_job_name(".a") && !is_job_name("a.-b"));
    }

    #[test]
    fn a_namespace_is_permitted_when_it_is_listed_and_not_kubernetes_own() {
        let permits = |list: &str, name: &str| list.parse::<Namespaces>().unwrap().permit(name);
        assert!(permits("batch", "batch") && permits(" a , batch ", "batch"));
        assert!(permits("jobs-*", "jobs-a") && permits("*", "anything"));
        assert!(permits("default", "default") && permits("*,default", "default"));
        for (list, name) in [
            ("", "batch"),
            ("batch", "batch-2"),
            ("jobs-*", "jobs-"),
            ("jobs-*", "ajobs-b"),
            ("*", "kube-system"),
            ("k*", "kube-public"),
            ("*", "default"),
            ("d*", "default"),
            ("*", "../kube-system"),
            ("*", "A"),
        ] {
            assert!(!permits(list, name), "{list} {name}");
        }
    }

    #[test]
    fn a_list_of_namespaces_that_cannot_be_meant_is_refused() {
        for bad in ["kube-system", "kube-*", "a*b", "**", "A", "a/b", "-a", "a b"] {
            assert!(bad.parse::<Namespaces>().is_err(), "{bad}");
        }
        assert_eq!("a,b-*".parse::<Namespaces>().unwrap().to_string(), "a,b-*");
    }

    #[test]
    fn images_are_read_as_the_container_runtimes_read_them() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (image, expected) in [
            ("busybox", "docker.io/library/busybox"),
            ("busybox:1.37", "docker.io/library/busybox"),
            ("docker.io/busybox", "docker.io/library/busybox"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox"),
            ("team/tool", "docker.io/team/tool"),
            ("localhost/tool", "localhost/tool"),
            ("localhost:5000/tool:2", "localhost:5000/tool"),
            ("public.ecr.aws/a/b-c__d.e:V1_2", "public.ecr.aws/a/b-c__d.e"),
            (&format!("ghcr.io/a/b@{digest}"), "ghcr.io/a/b"),
            (&format!("ghcr.io/a/b:1@{digest}"), "ghcr.io/a/b"),
        ] {
            assert_eq!(repository(image).as_deref(), Some(expected), "{image}");
        }
        for bad in [
            "",
            " busybox",
            "busybox ",
            "Busybox",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:b:c",
            "a@b",
            "a:@",
            "a@sha256:00",
            "a/../b",
            "a/./b",
            "https://a/b",
            "user@host/a",
            "a\nb",
            "ghcr.io",
            "ghcr.io:/a",
            "ghcr.io:x/a",
            "a:tag/b",
            "a:-x",
            "-a",
            "a___b",
            "a\u{430}",
        ] {
            let read = repository(bad);
            assert!(read.is_none() || bad == "ghcr.io", "{bad:?} is read as {read:?}");
        }
        assert_eq!(
            repository("ghcr.io").as_deref(),
            Some("docker.io/library/ghcr.io"),
            "Docker reads it so too"
        );
    }

    #[test]
    fn no_image_gets_in_by_looking_like_another() {
        let images: Images = "allowed.example.com/team/*, busybox, ghcr.io/a/tool".parse().unwrap();
        for image in [
            "allowed.example.com/team/a",
            "allowed.example.com/team/deep/er:1",
            "busybox:1.37",
            "docker.io/library/busybox",
            "ghcr.io/a/tool",
            "ghcr.io/a/tool:v2",
        ] {
            assert_eq!(images.permit(image), Ok(()), "{image}");
        }
        for image in [
            "allowed.example.com.evil/team/a",
            "allowed.example.com:80/team/a",
            "allowed.example.com/teams/a",
            "allowed.example.com/team",
            "allowed.example.com/team/../other/a",
            "evil.com/allowed.example.com/team/a",
            "evil/a:allowed.example.com/team/a",
            "allowed.example.com@evil.com/team/a",
            "busybox.evil.com/busybox",
            "evil/busybox",
            "localhost/busybox",
            "busybox2",
            "ghcr.io/a/tool/b",
            "ghcr.io/a/tool-b",
            "GHCR.IO/a/tool",
        ] {
            assert!(images.permit(image).is_err(), "{image}");
        }
        assert!(Images::default().permit("busybox").is_err(), "none is allowed where none is listed");
        let any: Images = "*".parse().unwrap();
        assert!(any.permit("evil.com/a").is_ok() && any.permit("a b").is_err());
    }

    #[test]
    fn a_list_of_images_that_cannot_be_meant_is_refused() {
        for bad in ["busybox:1", "a@sha256:0", "A/*", "/*", "a*", "a/*/b", "https://ghcr.io/*", "**"] {
            assert!(bad.parse::<Images>().is_err(), "{bad}");
        }
        let whole: Images = "public.ecr.aws/*,team/*".parse().unwrap();
        assert!(whole.permit("public.ecr.aws/a/b").is_ok() && whole.permit("team/a").is_ok());
        assert!(whole.permit("docker.io/teams/a").is_err());
    }
}
