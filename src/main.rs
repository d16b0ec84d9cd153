//! The program `herd-mio`: parses the command line, loads the configuration and runs the server.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use log::{error, info, warn};

use herd_mio::cli::{Cli, one_line};
use herd_mio::config::secrets::{reread_secrets, secret_notes};
use herd_mio::config::{Config, SecretSource, TlsFiles, WorstCase};
use herd_mio::core::base::limits::{LimitValue, Limits};
use herd_mio::core::base::settings::Settings;
use herd_mio::core::link;
use herd_mio::core::node::clients_over_tls;
use herd_mio::logging::{self, LogError, Reserve};
use herd_mio::shell::event_loop::Server;
use herd_mio::shell::memory::{Budget, MemoryLimits};
use herd_mio::shell::reload::Reload;
use herd_mio::shell::service_manager::ServiceManager;
use herd_mio::shell::signals::SignalFlags;
use herd_mio::shell::start::{self, StartError};

fn main() -> ExitCode {
    // This call comes first, for two reasons. Before this call, a SIGHUP or SIGUSR1 would end the
    // process. And this call changes the signal mask, which only threads that start later inherit.
    let signal_flags = match SignalFlags::register() {
        Ok(signal_flags) => signal_flags,
        Err(error) => {
            let what = "cannot catch signals".into();
            return fail(1, &StartError::System { what, error }.to_string());
        }
    };
    let cli = match Cli::from_arguments() {
        Ok(cli) => cli,
        Err(error) if error.exit_code() == 0 => {
            // --help and --version
            return output_status(error.print().and_then(|()| io::stdout().flush()));
        }
        Err(error) => return fail(2, &one_line(&error)),
    };
    let config = match cli.config() {
        Ok(config) => config,
        Err(error) => return fail(2, &error.to_string()),
    };
    if cli.check {
        return check(&config);
    }
    serve(config, signal_flags)
}

/// Runs `--check`: does everything that a start does except serving.
fn check(config: &Config) -> ExitCode {
    let print = |text: &str| {
        let mut stdout = io::stdout();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    };
    let memory_limits = MemoryLimits::read();
    let budget = Budget::of(&config.settings.limits, &memory_limits);
    let worst = WorstCase::of(config, &budget, memory_limits);
    // First print the configuration. The operator needs this text to understand an error of the
    // checks.
    let printed = print(&format!("{}{worst}", config.describe()));
    match can_start(config, &budget, &worst) {
        Ok(notes) => output_status(printed.and_then(|()| print(&notes))),
        Err((status, what)) => fail(status, &what),
    }
}

fn can_start(config: &Config, budget: &Budget, worst: &WorstCase) -> Result<String, (u8, String)> {
    logging::check(&config.log.file).map_err(|error| (2, log_error(&config.log.file, &error)))?;
    let max = rlimit::increase_nofile_limit(rlimit::INFINITY);
    let descriptor_warning = max.map(|max| warn_of_descriptors(max, &config.settings));
    let checked = start::check(&config.settings, &config.ports, config.journal.as_ref())
        .map_err(|error| (1, error.to_string()))?;
    let notes = descriptor_warning
        .ok()
        .flatten()
        .into_iter()
        .chain(worst.notes());
    let notes = notes.chain(warn_of_tls_clients(&config.settings, budget));
    let notes = notes.chain(checked);
    Ok(notes.map(|note| format!("note        {note}\n")).collect())
}

/// Returns the exit status for the result of a write to the standard output. A closed pipe is not a
/// failure: the program that read from it needs no more output.
fn output_status(written: io::Result<()>) -> ExitCode {
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(
            1,
            &format!("cannot write to the standard output: {error}; send it where there is room"),
        ),
    }
}

fn log_error(path: &Path, error: &io::Error) -> String {
    format!(
        "cannot write the log {}: {error}; choose another place with --log-file or HERD_LOG_FILE",
        path.display()
    )
}

/// An upper bound for the descriptors that are not connections: standard streams, log, journal,
/// listeners, epoll, and a reserve.
const OWN_DESCRIPTORS: u64 = 32;

fn serve(mut config: Config, signal_flags: SignalFlags) -> ExitCode {
    let log_name = config.log.file.display().to_string();
    let limits = &config.settings.limits;
    let reserve = config.journal.as_ref().map(|journal| Reserve {
        bytes: limits.log_reserve_bytes,
        data_dir: journal.directory.clone(),
    });
    let _logging = match logging::start(
        &config.log,
        limits.log_buffer_bytes.to_count(),
        reserve,
        signal_flags.reopen_log(),
    ) {
        Ok(logging) => logging,
        Err(LogError::File(error)) => {
            return fail(2, &log_error(&config.log.file, &error));
        }
        Err(LogError::System(error)) => {
            return fail(
                1,
                &format!(
                    "no thread to write the log {log_name}: {error}; raise the limits of processes and of memory (ulimit -u, -v)"
                ),
            );
        }
    };
    let name = config.settings.name.clone();
    info!(
        "herd-mio {} starts as {name}, process {} (neighbours' protocol {})",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        link::VERSION
    );
    let memory_limits = MemoryLimits::read();
    let budget = Budget::of(&config.settings.limits, &memory_limits);
    for what in &memory_limits.unknown {
        warn!("cannot tell how much memory the process may have: {what}");
    }
    info!("buffers of connections: {budget}");
    if let Some(note) = warn_of_tls_clients(&config.settings, &budget) {
        warn!("{note}");
    }
    config.settings.limits.buffer_bytes = budget.bytes;
    // Allow more open files than the usual 1,024, up to the hard limit of the system.
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(max) => warn_of_descriptors(max, &config.settings)
            .into_iter()
            .for_each(|note| warn!("{note}")),
        Err(error) => warn!("cannot raise the limit of open files: {error}"),
    }
    let reload = reload(config.tls_files, config.secret_source);
    let started = Server::start(
        config.settings,
        &config.ports,
        config.journal.as_ref(),
        reload,
        signal_flags,
        ServiceManager::from_environment(),
    );
    let served = match started {
        Err(StartError::Stopped) => {
            info!("stopping: a signal came before the journal was read");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
        Ok(mut server) => {
            report_ready(&mut server, &name, &log_name, &config.notes).and_then(|()| {
                server
                    .run()
                    .map_err(|error| format!("the event loop failed: {error}"))
            })
        }
    };
    match served {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // If the log is the standard error, only `fail` prints the error. Otherwise the error
            // would appear twice.
            if log_name != "-" {
                error!("{error}");
            }
            fail(1, &error)
        }
    }
}

/// Returns the functions that read the certificates and the secrets again after a SIGHUP.
fn reload(tls_files: TlsFiles, secret_source: SecretSource) -> Reload {
    let certificates = (!tls_files.is_empty())
        .then(|| Arc::new(move || tls_files.read().map_err(|error| error.to_string())) as _);
    let file = secret_source.file().map(Path::to_path_buf);
    let secrets = file.map(|file| {
        let read = move || {
            let secrets = reread_secrets(&file).map_err(|error| error.to_string())?;
            let notes = secret_notes(&secrets, &secret_source);
            Ok((secrets, notes))
        };
        Arc::new(read) as _
    });
    Reload {
        certificates,
        secrets,
    }
}

/// Reports in the log, on the standard output and to the service manager that the server is ready.
fn report_ready(
    server: &mut Server,
    name: &str,
    log_name: &str,
    notes: &[String],
) -> Result<(), String> {
    let unknown = |error| format!("the system does not tell where the server listens: {error}");
    let listed = |addresses: Vec<SocketAddr>| {
        let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        addresses.join(", ")
    };
    let clients = listed(server.clients_addresses().map_err(unknown)?);
    let mut ready = format!("herd-mio {name}: clients on {clients}");
    let neighbours = listed(server.neighbours_addresses().map_err(unknown)?);
    if !neighbours.is_empty() {
        ready.push_str(&format!(", neighbours on {neighbours}"));
    }
    let http = listed(server.http_addresses().map_err(unknown)?);
    if !http.is_empty() {
        ready.push_str(&format!(", HTTP on {http}"));
    }
    info!("{ready}, process {}", std::process::id());
    notes.iter().for_each(|note| warn!("{note}"));
    server.tell_ready();
    let log = match log_name {
        "-" => "log on the standard error".to_owned(),
        file => format!("log in {file}"),
    };
    // If the standard output is closed or full, the server runs all the same.
    let mut stdout = io::stdout();
    let written = writeln!(stdout, "{ready}, {log}").and_then(|()| stdout.flush());
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        warn!("cannot say on the standard output that the server is ready: {error}");
    }
    Ok(())
}

/// Returns a warning if `limits.max_clients` clients could use up all descriptors of the process.
/// `max` is the maximum number of open files.
fn warn_of_descriptors(max: u64, settings: &Settings) -> Option<String> {
    let limits = &settings.limits;
    let unidentified = match settings.proxies.is_empty() {
        true => 0,
        false => limits.max_unidentified,
    };
    let http = match settings.http {
        None => 0,
        Some(_) => limits.max_http_connections,
    };
    let neighbours = &settings.neighbours;
    let diallers = neighbours.iter().filter(|it| !it.we_dial).count() as u64;
    let others = neighbours.len() as u64
        + diallers * limits.max_unproven_per_neighbour
        + unidentified
        + limits.max_unproven
        + limits.max_places_connections
        + http;
    let left = max.saturating_sub(others + OWN_DESCRIPTORS);
    (left < limits.max_clients).then(|| {
        format!(
            "only {max} files may be open at once: where there are more than {left} clients, neighbours and Places may find none left; \
             raise that (ulimit -n), or lower limits.max_clients, which is {}",
            limits.max_clients
        )
    })
}

/// Returns a warning if clients connect with TLS, and the memory for buffers is enough for fewer
/// TLS clients than `limits.max_clients`.
fn warn_of_tls_clients(settings: &Settings, budget: &Budget) -> Option<String> {
    let limits = Limits {
        buffer_bytes: budget.bytes,
        ..settings.limits.clone()
    };
    let max = clients_over_tls(&limits).filter(|_| settings.tls.clients.is_some())?;
    (max < limits.max_clients).then(|| {
        format!(
            "the buffers have room for {max} clients over TLS, more are refused; \
             raise limits.buffer_bytes, which is {} here, or lower limits.max_clients, which is {}",
            budget.bytes, limits.max_clients
        )
    })
}

fn fail(status: u8, what: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "herd-mio: {what}");
    ExitCode::from(status)
}
