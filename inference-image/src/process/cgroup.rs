//! How many cores and how much memory this process may use: the limits of its cgroup (v1 and v2) and its CPU
//! affinity, not the host's resources.

use std::path::{Path, PathBuf};

/// Cores to use, at least 1. A limit of 300m is 1 core and a limit of 1.5 is 2: leaving half a core idle would gain
/// nothing.
#[must_use]
pub fn cores() -> usize {
    let affinity = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize);
    match cpu_limit(Path::new("/")) {
        Some(limit) => affinity.min(whole_cores(limit)).max(1),
        None => affinity.max(1),
    }
}

fn whole_cores(limit: f64) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let cores = limit.ceil() as usize;
    cores.max(1)
}

/// The lowest CPU limit, in cores, of this process's cgroup and its ancestors; `None` if there is none. `root` is
/// `/`, or in tests a copy of the files below it.
#[must_use]
pub fn cpu_limit(root: &Path) -> Option<f64> {
    tightest(root, "cpu", |version, folder| match version {
        Version::V2 => {
            let text = read(folder.join("cpu.max"))?;
            let (quota, period) = text.split_once(' ')?;
            ratio(quota, period)
        }
        Version::V1 => ratio(
            &read(folder.join("cpu.cfs_quota_us"))?,
            &read(folder.join("cpu.cfs_period_us"))?,
        ),
    })
}

/// The same for the memory limit, in bytes. If there is no limit, version 1 reports a number that is larger than any
/// memory.
#[must_use]
pub fn memory_limit(root: &Path) -> Option<f64> {
    tightest(root, "memory", |version, folder| {
        let file = match version {
            Version::V2 => "memory.max",
            Version::V1 => "memory.limit_in_bytes",
        };
        read(folder.join(file))?.parse().ok()
    })
}

/// Reads the limit of one cgroup from its folder.
type Limit = fn(Version, &Path) -> Option<f64>;

fn tightest(root: &Path, controller: &str, limit: Limit) -> Option<f64> {
    let memberships = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = std::fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let mounts = mounts.lines().filter_map(|line| Mount::parse(line, controller));
    let limits = mounts.flat_map(|mount| {
        let path = memberships
            .lines()
            .find_map(|line| mount.membership(line, controller));
        path.map(|path| mount.limits(root, path, limit))
            .unwrap_or_default()
    });
    limits.reduce(f64::min)
}

#[derive(Clone, Copy, PartialEq)]
enum Version {
    V1,
    V2,
}

/// A mounted cgroup hierarchy that can carry a controller's limit.
struct Mount<'a> {
    version: Version,
    /// The cgroup that is mounted; not `/` in a container without a cgroup namespace.
    root: &'a str,
    point: &'a str,
}

impl<'a> Mount<'a> {
    /// Reads a line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
    fn parse(line: &'a str, controller: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let version = match right.next()? {
            "cgroup2" => Version::V2,
            "cgroup" if right.nth(1)?.split(',').any(|option| option == controller) => Version::V1,
            _ => return None,
        };
        Some(Self { version, root, point })
    }

    /// The process's cgroup in this hierarchy, from a line of `/proc/self/cgroup` (cgroups(7)).
    fn membership(&self, line: &'a str, controller: &str) -> Option<&'a str> {
        let mut fields = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match self.version {
            Version::V1 => controllers.split(',').any(|other| other == controller),
            Version::V2 => hierarchy == "0",
        };
        ours.then_some(path)
    }

    /// Limits from the process's cgroup up to the mount point.
    fn limits(&self, root: &Path, path: &str, limit: Limit) -> Vec<f64> {
        let point = root.join(self.point.trim_start_matches('/'));
        // Without a cgroup namespace, the path is the host's, and the mount shows only the part below `root`.
        let below = path.strip_prefix(self.root.trim_end_matches('/')).unwrap_or("");
        let mut folder = point.join(below.trim_start_matches('/'));
        let mut limits = Vec::new();
        while folder.starts_with(&point) {
            limits.extend(limit(self.version, &folder));
            let Some(parent) = folder.parent() else { break };
            folder = parent.to_owned();
        }
        limits
    }
}

fn read(path: PathBuf) -> Option<String> {
    std::fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

/// `None` for no limit: `max` in version 2, −1 in version 1.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      32 23 0:28 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n";

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn version_2_takes_the_tightest_limit_on_the_way_up() {
        let root = host(&[
            ("proc/self/cgroup", "0::/kubepods/pod7\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/kubepods/pod7/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/kubepods/cpu.max", "150000 100000\n"),
        ]);
        assert_eq!(cpu_limit(root.path()), Some(1.5));
    }

    #[test]
    fn version_2_in_a_cgroup_namespace_reads_the_mount_point() {
        let root = host(&[
            ("proc/self/cgroup", "0::/\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/cpu.max", "30000 100000\n"),
        ]);
        assert_eq!(cpu_limit(root.path()), Some(0.3));
    }

    #[test]
    fn version_1_reads_quota_and_period() {
        let root = host(&[
            (
                "proc/self/cgroup",
                "5:memory:/other\n4:cpu,cpuacct:/kubepods/pod7\n",
            ),
            ("proc/self/mountinfo", V1),
            (
                "sys/fs/cgroup/cpu,cpuacct/kubepods/pod7/cpu.cfs_quota_us",
                "200000\n",
            ),
            (
                "sys/fs/cgroup/cpu,cpuacct/kubepods/pod7/cpu.cfs_period_us",
                "100000\n",
            ),
            ("sys/fs/cgroup/cpu,cpuacct/kubepods/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/kubepods/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(cpu_limit(root.path()), Some(2.0));
    }

    #[test]
    fn version_1_in_a_container_maps_the_hosts_path_to_the_mount() {
        let mounts = V1.replace("0:27 / ", "0:27 /kubepods/pod7 ");
        let root = host(&[
            ("proc/self/cgroup", "4:cpu,cpuacct:/kubepods/pod7\n"),
            ("proc/self/mountinfo", &mounts),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "30000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(cpu_limit(root.path()), Some(0.3));
    }

    /// Without it, many connections could take more memory than the container has.
    #[test]
    fn memory_is_limited_in_both_versions() {
        let two = host(&[
            ("proc/self/cgroup", "0::/pod7\n"),
            ("proc/self/mountinfo", V2),
            ("sys/fs/cgroup/pod7/memory.max", "max\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
        ]);
        assert_eq!(memory_limit(two.path()), Some(536_870_912.0));
        let one = host(&[
            ("proc/self/cgroup", "5:memory:/pod7\n4:cpu,cpuacct:/other\n"),
            ("proc/self/mountinfo", V1),
            ("sys/fs/cgroup/memory/pod7/memory.limit_in_bytes", "1048576\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        assert_eq!(memory_limit(one.path()), Some(1_048_576.0));
    }

    #[test]
    fn no_limit_and_unreadable_files_are_no_limit() {
        let root = host(&[("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", V2)]);
        assert_eq!(cpu_limit(root.path()), None);
        assert_eq!(cpu_limit(Path::new("/nowhere")), None);
    }

    #[test]
    fn a_fraction_rounds_up_to_a_whole_core() {
        assert_eq!([0.05, 0.3, 1.0, 1.5, 2.0].map(whole_cores), [1, 1, 1, 2, 2]);
    }
}
