//! The control group of this process, and those around it: cgroups(7), versions 1 and 2.
//!
//! Invariant: what is told is the narrowest limit on the way up to what this process sees as the root.

use std::path::{Path, PathBuf};

use super::facts::{Fact, Files, Room, number};

/// What the control group leaves.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its path, as the hierarchy has it that limits processes.
    pub path: Fact<String>,
    /// Processes and threads; `None` without a limit.
    pub tasks: Fact<Option<Ceiling>>,
    /// Bytes of memory.
    pub memory: Fact<Option<Ceiling>>,
    /// How much of the last minute some task of it waited for memory, in percent.
    pub pressure: Fact<f64>,
}

/// A limit of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceiling {
    /// What there is, and what of it is used.
    pub room: Room,
    /// The file that sets it.
    pub file: PathBuf,
}

/// A controller, and its files of version 2 and of version 1.
struct Controller {
    name: &'static str,
    most: [&'static str; 2],
    used: [&'static str; 2],
}

const PIDS: Controller = Controller { name: "pids", most: ["pids.max"; 2], used: ["pids.current"; 2] };

const MEMORY: Controller = Controller {
    name: "memory",
    most: ["memory.max", "memory.limit_in_bytes"],
    used: ["memory.current", "memory.usage_in_bytes"],
};

/// More is no limit: version 1 has a number where there is none, all pages that a number of 63 bits can count.
const NO_LIMIT: u64 = 1 << 62;

impl Group {
    pub(super) fn read(files: &Files<'_>) -> Self {
        let own = files.text("proc/self/cgroup");
        let mounts = files.text("proc/self/mountinfo");
        let both = own.and_then(|own| Ok((own, mounts?)));
        let find = |controller: &Controller| {
            let (own, mounts) = both.clone()?;
            Ok(Place::all(controller.name, &own, &mounts))
        };
        let narrowest = |controller: &Controller| {
            let places: Vec<Place> = find(controller)?;
            Ok(places
                .iter()
                .flat_map(|place| place.ceilings(controller, files))
                .min_by_key(|it| it.room.left()))
        };
        let memory = find(&MEMORY).unwrap_or_default();
        let pressures = memory.iter().map(|place| place.directory.join("memory.pressure"));
        let pressure = pressures.map(|path| relative(&path)).find(|path| files.has(path));
        Self {
            path: find(&PIDS).and_then(|places| {
                let path = places.first().map(|place| place.path.clone());
                path.ok_or_else(|| "no control group is mounted".to_owned())
            }),
            tasks: narrowest(&PIDS),
            memory: narrowest(&MEMORY),
            pressure: files.field(pressure.as_deref().unwrap_or("proc/pressure/memory"), minute),
        }
    }

    /// The unit of systemd that this process belongs to, if it is a service.
    pub fn service(&self) -> Option<&str> {
        let path = self.path.as_deref().ok()?;
        path.rsplit('/').find(|name| name.ends_with(".service"))
    }
}

impl Ceiling {
    /// The unit of systemd whose group this is.
    pub fn unit(&self) -> Option<&str> {
        let name = self.file.parent()?.file_name()?.to_str()?;
        [".service", ".scope", ".slice"].iter().any(|kind| name.ends_with(kind)).then_some(name)
    }
}

/// What stands in pressure files: `some avg10=0.00 avg60=1.23 avg300=0.00 total=0`.
fn minute(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|word| word.strip_prefix("avg60="))?.parse().ok()
}

/// A group of ours in one hierarchy.
#[derive(Debug)]
struct Place {
    /// In the hierarchy.
    path: String,
    /// Where it can be seen.
    directory: PathBuf,
    /// Where the hierarchy can be seen from.
    top: PathBuf,
    /// 0 of version 2, 1 of version 1.
    version: usize,
}

impl Place {
    /// Where this controller may be, by /proc/self/cgroup and /proc/self/mountinfo.
    fn all(controller: &str, own: &str, mounts: &str) -> Vec<Self> {
        own.lines().filter_map(|line| Self::of_line(line, controller, mounts)).collect()
    }

    /// A line is number, controllers and path: `0::/user.slice` or `4:cpu,cpuacct:/`.
    fn of_line(line: &str, controller: &str, mounts: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let version = match controllers {
            "" => 0,
            _ if controllers.split(',').any(|name| name == controller) => 1,
            _ => return None,
        };
        mounts.lines().find_map(|mount| {
            let (point, system) = mount.split_once(" - ")?;
            let mut system = system.split(' ');
            let (kind, options) = (system.next()?, system.nth(1)?);
            let is_it = match version {
                0 => kind == "cgroup2",
                _ => kind == "cgroup" && options.split(',').any(|option| option == controller),
            };
            let mut point = point.split(' ').skip(3);
            let (root, top) = (point.next()?, PathBuf::from(point.next()?));
            let below = Path::new(path).strip_prefix(root).ok().filter(|_| is_it)?;
            // join would append a slash for an empty path
            let directory = if below.as_os_str().is_empty() { top.clone() } else { top.join(below) };
            Some(Self { path: path.to_owned(), directory, top, version })
        })
    }

    /// Its limits and those of the groups around it.
    fn ceilings(&self, controller: &Controller, files: &Files<'_>) -> Vec<Ceiling> {
        let (most, used) = (controller.most[self.version], controller.used[self.version]);
        let levels = self.directory.ancestors().take_while(|level| level.starts_with(&self.top));
        let ceiling = |level: &Path| {
            let file = level.join(most);
            let read = |file: &Path| files.field(&relative(file), number).ok();
            // "max" is no number
            let most = read(&file).filter(|most| *most < NO_LIMIT)?;
            Some(Ceiling { room: Room { most, used: read(&level.join(used))? }, file })
        };
        levels.filter_map(ceiling).collect()
    }
}

/// A path below the root.
fn relative(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').to_owned()
}
