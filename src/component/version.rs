//! Versions of components, as image tags tell them.

use std::fmt;
use std::str::FromStr;

/// A release: what decides which flags a program knows. What follows the patch number (`-0`, `-rc.1`, `-eks-1`, `+k3s1`) says who built it, and is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major.
    pub major: u16,
    /// Minor.
    pub minor: u16,
    /// Patch.
    pub patch: u16,
}

impl Version {
    /// `major.minor.patch`.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// Whether this is a later minor version than `other`, whatever the patch.
    pub fn is_newer_minor_than(self, other: Self) -> bool {
        (self.major, self.minor) > (other.major, other.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A text that names no release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not name a release as major.minor.patch")]
pub struct NotARelease(String);

impl FromStr for Version {
    type Err = NotARelease;

    /// Three numbers, with or without `v`. All three are needed: a patch release decides what etcd can do.
    fn from_str(text: &str) -> Result<Self, NotARelease> {
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let numbers = numbers.split(['-', '+', '_']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(|part| part.parse().ok());
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => Ok(Self { major, minor, patch }),
            _ => Err(NotARelease(text.to_owned())),
        }
    }
}

/// The tag of an image's reference: `v1.36.3` of `registry.k8s.io/kube-apiserver:v1.36.3@sha256:…`. `None` for a reference by digest alone.
pub(super) fn tag(image: &str) -> Option<&str> {
    let named = image.split('@').next().unwrap_or_default();
    // A colon before the last slash belongs to the registry's port.
    let last = named.rsplit('/').next().unwrap_or_default();
    last.split_once(':').map(|(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_told_from_port_and_digest() {
        for (image, expected) in [
            ("registry.k8s.io/kube-apiserver:v1.36.3", Some("v1.36.3")),
            ("registry.k8s.io/etcd:3.6.16-0", Some("3.6.16-0")),
            ("registry.example:5000/k8s/etcd:3.5.24-0@sha256:0123", Some("3.5.24-0")),
            ("registry.example:5000/k8s/etcd@sha256:0123", None),
            ("registry.example:5000/k8s/etcd", None),
            ("etcd:latest", Some("latest")),
            ("etcd", None),
            ("", None),
        ] {
            assert_eq!(tag(image), expected, "{image}");
        }
    }

    #[test]
    fn a_release_is_three_numbers_whoever_built_it() {
        for (text, expected) in [
            ("v1.36.3", (1, 36, 3)),
            ("1.36.3", (1, 36, 3)),
            ("3.6.16-0", (3, 6, 16)),
            ("v1.29.10-eks-1-29-30", (1, 29, 10)),
            ("v1.31.4+k3s1", (1, 31, 4)),
            ("v1.31.4-rke2r1-build20250101", (1, 31, 4)),
            ("v1.31.4_vmware.1", (1, 31, 4)),
            ("v1.37.0-beta.0", (1, 37, 0)),
            ("3.5.9-debian-11-r0", (3, 5, 9)),
        ] {
            let (major, minor, patch) = expected;
            assert_eq!(text.parse(), Ok(Version::new(major, minor, patch)), "{text}");
        }
    }

    #[test]
    fn what_names_no_release_is_refused() {
        for text in ["", "latest", "v1", "v1.36", "1.36.x", "1.36.3.1", "1..3", "vv1.36.3", "1.36.99999", "-1.36.3", "1.+36.3", " 1.36.3"] {
            assert_eq!(text.parse::<Version>(), Err(NotARelease(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn releases_are_ordered_by_number_not_by_text() {
        let parse = |text: &str| text.parse::<Version>().unwrap();
        assert!(parse("3.5.9") < parse("3.5.11"));
        assert!(parse("v1.9.0") < parse("v1.22.0"));
        assert!(parse("3.6.0").is_newer_minor_than(parse("3.5.24")));
        assert!(!parse("3.6.9").is_newer_minor_than(parse("3.6.0")));
    }
}
