// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 6: `tylod`, the rooms of floor 5 wired together.
//!
//! ```text
//!   kernel queues ─► worker ─┐                        ┌─► journal ─► writer thread ─► state.db
//!   TUN device ────► worker ─┴─► Traffic ─► Instance ─┼─► outlets ─► followers of sessions
//!                                  ▲                  ├─► outlet ──► log thread ─► standard error
//!                  peers ─► sync ──┤                  ├─► outlet ──► sync ─► peers of Jool's kind
//!               cluster ◄─► node ──┘                  └─► outlet ──► node ◄─► cluster
//!   control socket ─► tokio ─► Gateway ─► rules, routes
//! ```
//!
//! Start: database, instances, TUN device and queues, rules last. Stop: the other way round.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Parser;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::filter::LevelFilter;

use self::cluster::Cluster;
use self::gateway::{Gateway, Ruling};
use self::handover::Legacy;
use self::log::Log;
use self::metrics::Endpoints;
use self::traffic::Traffic;
use self::watchdog::Watchdog;
use crate::control;
use crate::dataplane::{self, Addresses, Dataplane, NetworkWatch};
use crate::metrics::{Address, Source};
use crate::ruleset;
use crate::store::{self, Clock, Opening, Store};

mod cluster;
mod follow;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod handover;
mod log;
mod memory;
mod meter;
mod metrics;
mod news;
mod outlet;
mod portions;
mod sandbox;
mod service;
mod summary;
mod sync;
mod traffic;
mod watchdog;

/// NAT64, SIIT and MAP-T gateway: translates between IPv6 and IPv4.
///
/// Runs in the foreground, one per network namespace, and is controlled with the commands `jool`,
/// `jool_siit` and `jool_mapt` from within the same namespace. Instances, mappings and sessions
/// survive a restart.
#[derive(Debug, Parser)]
#[command(name = "tylod", version)]
struct Options {
    /// Where instances, mappings and sessions are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tylo")]
    state_dir: PathBuf,

    /// Use no disk: nothing is read, and nothing lasts
    #[arg(long, conflicts_with = "state_dir")]
    ephemeral: bool,

    /// Milliseconds that sessions are gathered for before they are written together (1-10000)
    #[arg(long, value_name = "MS", default_value_t = store::COMMIT_AFTER.as_millis() as u16,
          value_parser = clap::value_parser!(u16).range(1..=10_000), conflicts_with = "ephemeral")]
    commit_deadline: u16,

    /// First NFQUEUE number to use; every instance takes as many as there are workers
    #[arg(long, value_name = "NUMBER", default_value_t = 6400)]
    queue_base: u16,

    /// Packet worker threads, each with a queue of every instance (1-64; as many as processors)
    #[arg(long, visible_alias = "queue-total", value_name = "NUMBER",
          default_value_t = default_workers(), value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,

    /// Keep each packet worker on one processor
    #[arg(long)]
    pin: bool,

    /// Take TCP apart into segments, as without offloads: much slower, but a way to see whether
    /// super-packets are to blame for something
    #[arg(long)]
    no_super_packets: bool,

    /// Name of the TUN device that translated packets return by
    #[arg(long, value_name = "NAME", default_value = "tylo0", value_parser = device_name)]
    tun: String,

    /// Let the kernel's connection tracking see translated packets
    #[arg(long)]
    track: bool,

    /// Leave rules and TUN device in place on a clean stop, so that nothing leaks untranslated
    #[arg(long)]
    keep_rules: bool,

    /// Serve metrics for Prometheus here: IPV4:PORT, [IPV6]:PORT or the path of a Unix socket
    ///
    /// May be given several times. Whoever can reach the address may read them.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Vec<Address>,

    /// Keep all capabilities and system calls, to look for errors with
    #[arg(long)]
    no_sandbox: bool,

    /// Says whether these options are fine and what it could take over, and ends
    #[arg(long, hide = true)]
    preflight: bool,

    /// What to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LevelFilter,
}

/// What the daemon takes, for the manual.
pub fn command() -> clap::Command {
    <Options as clap::CommandFactory>::command()
}

/// Runs the daemon until it is told to stop.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            // Nothing sensible can be done when even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    if options.preflight {
        // Whoever asks sees that there is no answer.
        let _ = writeln!(io::stdout(), "{}", handover::preflight());
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt()
        .with_max_level(options.log)
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_target(false)
        // Would be printed to the same place, and panic there.
        .log_internal_errors(false)
        .init();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    sandbox::check_capabilities()?;
    if !options.no_sandbox {
        sandbox::drop_capabilities().context("cannot give up capabilities")?;
    }
    memory::keep_large_blocks_apart();
    let mut legacy = Legacy::from_environment()?;
    loop {
        match live(options, legacy)? {
            End::Stopped => return Ok(()),
            // Comes back only when that failed; then this program is its own successor.
            End::GivesWay(program, left) => legacy = left.exec(&program),
        }
    }
}

/// How the life of a program ends.
enum End {
    Stopped,
    GivesWay(PathBuf, Legacy),
}

fn listen(inherited: Option<UnixListener>) -> anyhow::Result<UnixListener> {
    let listener = match inherited {
        Some(listener) => control::inherit(listener),
        None => control::bind(),
    };
    match listener {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = match control::holder() {
                Some(pid) => format!(" (process {pid})"),
                None => String::new(),
            };
            bail!("a daemon runs in this network namespace already{holder}; stop it first")
        }
        Err(error) => Err(error).context("cannot open the control socket"),
    }
}

fn live(options: &Options, mut legacy: Legacy) -> anyhow::Result<End> {
    let listener = listen(legacy.control.take())?;
    let endpoints = Endpoints::open(&options.metrics, legacy.is_left())?;
    let (store, saved) = if options.ephemeral {
        (Store::ephemeral(clock), Vec::new())
    } else {
        let opening = Opening {
            deadline: Duration::from_millis(options.commit_deadline.into()),
            trusted: legacy.is_left(),
        };
        Store::open_with(&options.state_dir, clock, opening)?
    };
    let mode = match legacy.mode {
        Some(mode) => mode,
        None => ruleset::probe()?,
    };
    tracing::info!(queue_expression = %mode, "rules hand packets over with the {mode} expression");
    let now = dataplane::monotonic();
    let slots: Vec<_> = saved
        .into_iter()
        .map(|saved| Arc::new(gateway::restore(saved, now)))
        .collect();
    let numbers: Vec<usize> = slots.iter().map(|slot| slot.number).collect();
    let traffic = Arc::new(Traffic::new(
        slots,
        store,
        Addresses::open()?,
        Log::start(io::stderr())?,
    ));
    // From here on there is something to clean up.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _context = runtime.enter();
        [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ]
    };
    let found = Path::new("/proc/sys/net/ipv4/conf")
        .join(&options.tun)
        .exists();
    let state_dir = (!options.ephemeral).then(|| options.state_dir.clone());
    let cluster = Cluster::new(Arc::clone(&traffic), state_dir);
    cluster.prepare();
    let dataplane = Dataplane::start(
        dataplane::Options {
            tun: options.tun.clone(),
            workers: options.workers,
            pin: options.pin,
            queue_base: options.queue_base,
            super_packets: !options.no_super_packets,
            ..dataplane::Options::default()
        },
        Arc::clone(&traffic) as Arc<dyn dataplane::Handler>,
        std::mem::take(&mut legacy.dataplane),
    )?;
    let keeper = match legacy.rules.take() {
        Some(keeper) => keeper,
        None => ruleset::Keeper::open()?,
    };
    let (succession, successors) = mpsc::channel(1);
    let mut gateway = Gateway::new(
        Arc::clone(&traffic),
        dataplane,
        Ruling {
            mode,
            keeper,
            tun: options.tun.clone(),
            track: options.track,
        },
        succession,
    )?;
    gateway.cluster = cluster;
    gateway.found = Mutex::new(legacy.ruleset);
    let started = numbers
        .into_iter()
        .try_for_each(|number| gateway.dataplane.open_slot(number))
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(gateway.install()?));
    gateway.dataplane.settle();
    gateway.takeover = legacy.over();
    gateway.sandbox = sandbox::enter(!options.no_sandbox, legacy.filtered);
    let gateway = Arc::new(gateway);
    if let Err(error) = started {
        // Rules that a killed daemon left behind keep packets from leaking; they stay as found.
        let tidied = if found {
            Ok(())
        } else {
            dataplane::remove_rules()
        };
        let halted = halt(gateway, found);
        if let Err(error) = tidied.map_err(anyhow::Error::from).and(halted) {
            tracing::error!("{error:#}");
        }
        return Err(error);
    }
    gateway.cluster.resume();
    let kept = listener.try_clone()?;
    let result = serve(
        options,
        &gateway,
        listener,
        endpoints,
        runtime,
        &mut signals,
        successors,
    );
    if let Ok(successor) = &result {
        let managed = options.keep_rules
            && !options.ephemeral
            && handover::is_managed()
            && gateway.dataplane.can_hand_over();
        if successor.is_some() || managed {
            let legacy = give_way(&gateway, kept)?;
            match successor {
                Some(program) if !told_to_stop(&mut signals) => {
                    return Ok(End::GivesWay(program.clone(), legacy));
                }
                Some(_) | None if managed => return Ok(leave_to_manager(legacy)),
                Some(_) | None => {}
            }
        }
    }
    // After a failure the rules stay, as they do when the daemon is killed: what they divert waits
    // for the next daemon and does not leak past it.
    gateway.cluster.stop();
    let stopped = stop(gateway, options.keep_rules || result.is_err());
    let saved = save(&traffic);
    tracing::info!("stopped");
    result.and(stopped).and(saved).map(|()| End::Stopped)
}

/// Ends; the service manager may start the next one.
fn leave_to_manager(legacy: Legacy) -> End {
    if let Err(error) = legacy.deposit() {
        tracing::warn!(%error, "the service manager cannot be told to keep the queues");
    }
    tracing::info!("stopped");
    End::Stopped
}

/// Leaves everything to a successor: packets, rules, descriptors, and sessions on disk.
fn give_way(gateway: &Gateway, listener: UnixListener) -> anyhow::Result<Legacy> {
    let mut legacy = Legacy {
        control: Some(listener),
        ruleset: gateway.ruleset(),
        mode: Some(gateway.mode),
        filtered: gateway.sandbox.system_calls,
        ..Legacy::default()
    };
    legacy.begin(&gateway.takeover);
    legacy.dataplane = gateway.dataplane.hand_over()?;
    // Behind the last packet: the successor takes for old what the others have not heard of.
    gateway.cluster.stop();
    legacy.rules = Some(gateway.rules.keep()?);
    // Also when the clock was set a moment ago.
    let gaps = gateway.traffic.store.take_resync();
    for slot in gateway.traffic.slots().iter() {
        // What is not on disk for sure is written anew. Without it the successor knows less, but
        // packets wait for it, and there would be none.
        let whole = !gaps.contains(&slot.id) && gateway.traffic.store.flush(slot.id).is_ok();
        if !whole && let Err(error) = gateway.traffic.finish(slot) {
            let instance = &slot.name;
            tracing::error!(%error, instance, "the sessions of an instance may be lost");
        }
    }
    Ok(legacy)
}

/// Whether a signal came while nobody looked: a successor would not hear of it.
fn told_to_stop([terminate, interrupt, hangup]: &mut [Signal; 3]) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.is_ok_and(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = terminate.recv() => true,
                _ = interrupt.recv() => true,
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LAST_LOOK) => false,
            }
        })
    })
}

/// Writes what all instances have, whatever else went wrong.
fn save(traffic: &Traffic) -> anyhow::Result<()> {
    let mut result = Ok(());
    for slot in traffic.slots().iter() {
        let saved = traffic.finish(slot);
        let saved =
            saved.with_context(|| format!("the sessions of instance '{}' may be lost", slot.name));
        result = result.and(saved);
    }
    result
}

fn stop(gateway: Arc<Gateway>, keep: bool) -> anyhow::Result<()> {
    if !keep && let Err(error) = gateway.uninstall() {
        tracing::error!(%error, "the rules could not be removed");
    }
    halt(gateway, keep)
}

/// Ends the workers.
fn halt(gateway: Arc<Gateway>, keep_tun: bool) -> anyhow::Result<()> {
    match Arc::into_inner(gateway) {
        Some(gateway) => gateway.dataplane.stop(keep_tun)?,
        None => tracing::error!("a request is still under way; the TUN device stays"),
    }
    Ok(())
}

fn serve(
    options: &Options,
    gateway: &Arc<Gateway>,
    listener: UnixListener,
    endpoints: Endpoints,
    runtime: Runtime,
    [terminate, interrupt, hangup]: &mut [Signal; 3],
    mut successors: mpsc::Receiver<PathBuf>,
) -> anyhow::Result<Option<PathBuf>> {
    let service = Arc::clone(gateway) as Arc<dyn control::Service>;
    let mut serve = Box::pin(control::serve(listener, service));
    let source = Arc::clone(gateway) as Arc<dyn Source>;
    let result = runtime.block_on(async {
        let _endpoints = endpoints.serve(&source);
        let mut chores = tokio::time::interval(CHORES_EVERY);
        let rules = ruleset::Watch::open()?;
        let mut rules_changed = watch("tylo-rules", move || rules.wait())?;
        let network = NetworkWatch::open()?;
        let mut network_changed = watch("tylo-network", move || network.wait())?;
        // Addresses may have changed since they were asked for.
        gateway.guard_network();
        let mut mended = None;
        let mut watchdog = Watchdog::from_environment();
        let state_dir = (!options.ephemeral).then(|| options.state_dir.display());
        let takeover = &gateway.takeover;
        if takeover.count > 0 {
            tracing::info!(
                from = takeover.from,
                waited_ms = takeover.waited_ms,
                failed = takeover.failed,
                "took over"
            );
        }
        tracing::info!(
            state_dir = state_dir.map(tracing::field::display),
            instances = gateway.traffic.slots().len(),
            workers = options.workers,
            "ready"
        );
        let dataplane = &gateway.dataplane;
        // Harmless where no service manager listens.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        loop {
            tokio::select! {
                result = &mut serve => break result.map(|()| None).map_err(Into::into),
                _ = terminate.recv() => break Ok(None),
                _ = interrupt.recv() => break Ok(None),
                _ = hangup.recv() => break Ok(None),
                Some(program) = successors.recv() => {
                    // Whoever asked for it hears that it begins.
                    tokio::time::sleep(FAREWELL).await;
                    break Ok(Some(program));
                }
                Some(()) = rules_changed.recv() => {
                    let gateway = Arc::clone(gateway);
                    let guard = tokio::task::spawn_blocking(move || gateway.guard_rules());
                    watchdog.patiently(guard, dataplane).await?;
                }
                Some(()) = network_changed.recv() => {
                    let gateway = Arc::clone(gateway);
                    let guard = tokio::task::spawn_blocking(move || gateway.guard_network());
                    watchdog.patiently(guard, dataplane).await?;
                }
                () = watchdog.tick() => watchdog.report(dataplane),
                _ = chores.tick() => {
                    if let Some(what) = dataplane.failed() {
                        bail!("translation stopped: {what}");
                    }
                    // A snapshot holds up the packets for a moment, and a disk that failed may fail
                    // again.
                    if mended.is_none_or(|at: Instant| at.elapsed() >= MEND_AGAIN) {
                        let traffic = Arc::clone(&gateway.traffic);
                        let mend = tokio::task::spawn_blocking(move || traffic.mend());
                        let any = watchdog.patiently(mend, dataplane).await?;
                        mended = any.then(Instant::now);
                    }
                }
            }
        }
    });
    if gateway.traffic.hang_up() {
        // So that they hear why.
        runtime.block_on(async { tokio::time::sleep(FAREWELL).await });
    }
    let state = match result {
        Ok(Some(_)) => sd_notify::NotifyState::Reloading,
        _ => sd_notify::NotifyState::Stopping,
    };
    let _ = sd_notify::notify(&[state]);
    // Requests under way may finish, but none holds up the end for long, least of all one whose
    // asker does not read the answer.
    drop((serve, source));
    runtime.block_on(async { tokio::time::sleep(HANG_UP).await });
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

/// Says when `wait` returned true, until the receiver is dropped. It must return once in a while.
fn watch(
    name: &str,
    wait: impl Fn() -> bool + Send + 'static,
) -> anyhow::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            while !sender.is_closed() {
                if wait() {
                    // When one is waiting already, one look is enough for both.
                    let _ = sender.try_send(());
                }
            }
        })?;
    Ok(receiver)
}

fn clock() -> Clock {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
    Clock {
        tick: dataplane::monotonic(),
        wall,
    }
}

fn default_workers() -> u16 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    cpus.min(64) as u16
}

fn device_name(text: &str) -> Result<String, String> {
    let fine = (1..=15).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    if fine && text != "." && text != ".." {
        return Ok(text.to_owned());
    }
    Err("a device name has 1 to 15 characters without blanks, '/' and ':'".to_owned())
}

/// For whoever started the daemon by hand.
fn complain(error: &anyhow::Error) {
    let mut text = String::new();
    for part in error.chain().map(ToString::to_string) {
        // Some errors show what caused them.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
    }
    // There is nowhere left to complain about standard error.
    let _ = writeln!(io::stderr(), "tylod{text}");
}

/// Time for signals that came to be passed on.
const LAST_LOOK: Duration = Duration::from_millis(1);

/// Time to hang up.
const HANG_UP: Duration = Duration::from_millis(10);

/// How long a stop waits for those who follow sessions to be told.
const FAREWELL: Duration = Duration::from_millis(100);

const CHORES_EVERY: Duration = Duration::from_secs(2);

/// How long an instance whose copy on disk has gaps waits for the second attempt to write it.
const MEND_AGAIN: Duration = Duration::from_secs(30);
