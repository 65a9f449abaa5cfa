//! What the system says of the process: how much memory, how many files and how much processor time it has.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What the process has at one moment; `None` where the system has no `/proc` that tells.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// Memory that is in use, in bytes.
    pub resident_bytes: Option<u64>,
    /// Memory that is set aside, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Open files, sockets included.
    pub open_files: Option<u64>,
    /// The most of them; `None` also where there is no limit.
    pub files_max: Option<u64>,
    /// Processor time, in the program and in the system on its behalf.
    pub cpu: Duration,
}

impl Process {
    /// What it has now.
    pub fn now() -> Process {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
        };
        // One of them is the folder itself, which is open only for this.
        let open_files = fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1));
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Process {
            resident_bytes: bytes("VmRSS:"),
            virtual_bytes: bytes("VmSize:"),
            open_files,
            files_max: getrlimit(Resource::Nofile).current,
            cpu: Duration::try_from(cpu).unwrap_or_default(),
        }
    }
}
