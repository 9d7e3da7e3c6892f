//! A wall clock of its own for a process: `clock.c`, loaded into it. The tests of `tests/it` have it too.

use std::{
    fs,
    io::{Error, Result},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

/// How far the clock of a process is off. The process reads it anew each time.
#[derive(Debug)]
pub(crate) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// Why no clock can be moved on this machine; `None`: it can.
    pub(crate) fn unavailable() -> Option<&'static str> {
        let has_compiler = || Command::new("cc").arg("--version").output().is_ok();
        match cfg!(target_os = "linux") {
            false => Some("clocks are moved by LD_PRELOAD, which this system does not have"),
            true if !has_compiler() => Some("cc is missing: apt-get install gcc libc6-dev"),
            true => None,
        }
    }

    /// One that is right, in files below `dir`.
    pub(crate) fn right(dir: &Path, name: &str) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chaos/clock.c");
        let library = dir.join("clock.so");
        if !library.exists() {
            let built = Command::new("cc")
                .args(["-O1", "-shared", "-fPIC", "-o"])
                .args([&library, &source])
                .output()?;
            if !built.status.success() {
                let said = String::from_utf8_lossy(&built.stderr).into_owned();
                return Err(Error::other(format!("{} does not compile: {said}", source.display())));
            }
        }
        let clock = Self { library, file: dir.join(format!("{name}.clock")) };
        clock.set(0)?;
        Ok(clock)
    }

    /// Puts it so many seconds ahead of the machine's, or behind.
    pub(crate) fn set(&self, seconds: i64) -> Result<()> {
        // In place: the process has it mapped.
        let file = fs::File::options().create(true).truncate(false).write(true).open(&self.file)?;
        file.write_all_at(&seconds.to_ne_bytes(), 0)
    }

    /// Whether a process has it: one that is linked statically never has.
    pub(crate) fn is_of(&self, pid: u32) -> bool {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        maps.contains(&self.file.display().to_string())
    }

    /// What makes a process take it for its own.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        let word = |path: &Path| path.display().to_string();
        [("LD_PRELOAD", word(&self.library)), ("MOVED_CLOCK", word(&self.file))]
    }
}
