// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the commands are tried out.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A network namespace with a daemon and the names that the recordings know.
pub(crate) struct Lab {
    namespace: String,
    pub(crate) folder: PathBuf,
    pub(crate) daemon: Option<Child>,
}

impl Lab {
    /// `None`, with a word about it, where namespaces cannot be made.
    pub(crate) fn new(topic: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let namespace = format!("tylo-cli-{topic}-{}", std::process::id());
        let lab = Self {
            folder: std::env::temp_dir().join(&namespace),
            namespace,
            daemon: None,
        };
        // `ip netns exec` shows these to what it starts.
        fs::create_dir_all(lab.etc()).unwrap();
        let hosts = "127.0.0.1 localhost\n2001:db8:6::2 client6.example\n\
                     203.0.113.2 server4.example\n192.0.2.1 nat64.example\n";
        fs::write(lab.etc().join("hosts"), hosts).unwrap();
        fs::write(lab.etc().join("resolv.conf"), "").unwrap();
        // A copy, because users without rights may not reach the original.
        fs::create_dir_all(&lab.folder).unwrap();
        fs::set_permissions(&lab.folder, PermissionsExt::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_tylo"), lab.folder.join("tylo")).unwrap();
        for name in &PROGRAMS[1..] {
            symlink("tylo", lab.folder.join(name)).unwrap();
        }
        run(Command::new("ip").args(["netns", "add", &lab.namespace]));
        run(Command::new("ip").args(["-n", &lab.namespace, "link", "set", "lo", "up"]));
        Some(lab)
    }

    fn etc(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.namespace)
    }

    pub(crate) fn inside(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]);
        command.stdin(Stdio::null());
        command
    }

    /// Puts the files that recorded commands read where they find them.
    pub(crate) fn lend(&self, recordings: &str) {
        for file in fs::read_dir(fixtures().join(recordings)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e == "json") {
                fs::copy(&path, self.folder.join(path.file_name().unwrap())).unwrap();
            }
        }
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn start(&mut self) {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let daemon = self
            .inside()
            .arg(self.folder.join("tylod"))
            .arg("--state-dir")
            .arg(self.folder.join("state"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = self.daemon.insert(daemon);
        let deadline = Instant::now() + START_TIME;
        loop {
            let gone = daemon.try_wait().unwrap();
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(gone.is_none(), "the daemon ended: {gone:?}\n{}", log());
            let out = Command::new("ip")
                .args(["netns", "exec", &self.namespace])
                .arg(self.folder.join("jool"))
                .args(["instance", "display"])
                .output()
                .unwrap();
            if out.status.success() {
                return;
            }
            let complaint = text(&out.stderr);
            assert!(Instant::now() < deadline, "{complaint}\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        let pid = rustix::process::Pid::from_child(&daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + START_TIME;
        while Instant::now() < deadline {
            if matches!(daemon.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = daemon.kill();
        let _ = daemon.wait();
    }

    /// Runs a recorded command line.
    pub(crate) fn jool(&self, line: &str, nobody: bool) -> Output {
        let mut words = split(line).into_iter();
        let program = words.next().unwrap();
        assert!(PROGRAMS.contains(&program.as_str()), "{line}");
        let mut command = self.inside();
        command.current_dir(&self.folder);
        if nobody {
            let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
            command.arg("setpriv").args(user);
        }
        let out = command.arg(self.folder.join(program)).args(words).output();
        out.unwrap()
    }

    /// Runs a command line that succeeds.
    pub(crate) fn must(&self, line: &str) -> String {
        let out = self.jool(line, false);
        assert!(out.status.success(), "{line}: {out:?}");
        text(&out.stdout).to_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop();
        let _ = Command::new("ip")
            .args(["netns", "del", &self.namespace])
            .status();
        let _ = fs::remove_dir_all(self.etc());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cli")
}

/// The command under another name.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tylo"));
    std::os::unix::process::CommandExt::arg0(&mut command, name);
    command
}

pub(crate) fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is text")
}

/// Splits a recorded command line: words, some of them in single quotes.
fn split(line: &str) -> Vec<String> {
    line.split(' ')
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}

/// The names of the one program; the first is its own.
const PROGRAMS: [&str; 6] = ["tylo", "tylod", "jool", "jool_siit", "jool_mapt", "joold"];

/// How long the daemon may take to start or stop.
const START_TIME: Duration = Duration::from_secs(20);
