//! Parses the command line, loads the configuration, runs the server; nothing else.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use log::{error, info, warn};

use herd_mio::cli::{Cli, one_line};
use herd_mio::config::Config;
use herd_mio::core::limits::count;
use herd_mio::core::settings::Settings;
use herd_mio::logging::{self, LogError};
use herd_mio::shell::event_loop::{ReadCertificates, Server, StartError};

fn main() -> ExitCode {
    let cli = match Cli::from_arguments() {
        Ok(cli) => cli,
        Err(error) if error.exit_code() == 0 => {
            // --help and --version; a closed pipe is no reason to fail.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(2, &one_line(&error)),
    };
    let config = match cli.config() {
        Ok(config) => config,
        Err(error) => return fail(2, &error.to_string()),
    };
    if cli.check {
        let _ = write!(io::stdout(), "{}", config.describe());
        return ExitCode::SUCCESS;
    }
    serve(config)
}

/// Descriptors that are nobody's connection: standard streams, log, journal, listeners, epoll; and some to spare.
const OWN_DESCRIPTORS: u64 = 32;

fn serve(config: Config) -> ExitCode {
    let log_name = config.log_file.display().to_string();
    let _logging = match logging::start(
        &config.log_file,
        config.log_level,
        count(config.settings.limits.log_buffer_bytes),
    ) {
        Ok(logging) => logging,
        Err(LogError::File(error)) => {
            return fail(
                2,
                &format!(
                    "cannot write the log {log_name}: {error}; choose another place with --log-file"
                ),
            );
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
    // More descriptors than the shell's usual 1,024, if the system's hard limit allows.
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(most) => too_few_descriptors(most, &config.settings)
            .into_iter()
            .for_each(|note| warn!("{note}")),
        Err(error) => warn!("cannot raise the limit of open files: {error}"),
    }
    let tls_files = config.tls_files;
    let certificates: Option<ReadCertificates> = (!tls_files.is_empty())
        .then(|| Arc::new(move || tls_files.read().map_err(|error| error.to_string())) as _);
    let started = Server::start(
        config.settings,
        &config.listen,
        config.listen_peers.as_ref(),
        config.journal.as_ref(),
        certificates,
    );
    let served = match started {
        Err(StartError::Stopped) => {
            info!("stopping: a signal came before the journal was read");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
        Ok(server) => ready(&server, &name, &log_name, &config.notes).and_then(|()| {
            server
                .run()
                .map_err(|error| format!("the event loop failed: {error}"))
        }),
    };
    match served {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Where the log is the standard error, it is told there once.
            if log_name != "-" {
                error!("{error}");
            }
            fail(1, &error)
        }
    }
}

/// Tells where it serves.
fn ready(server: &Server, name: &str, log_name: &str, notes: &[String]) -> Result<(), String> {
    let unknown = |error| format!("the system does not tell where the server listens: {error}");
    let clients = server.clients_address().map_err(unknown)?;
    let mut ready = format!("herd-mio {name}: clients on {clients}");
    if let Some(neighbours) = server.neighbours_address().map_err(unknown)? {
        ready.push_str(&format!(", neighbours on {neighbours}"));
    }
    info!("{ready}, process {}", std::process::id());
    notes.iter().for_each(|note| warn!("{note}"));
    // Whoever started it may have closed the standard output; that is no reason not to serve.
    let _ = writeln!(io::stdout(), "{ready}, log in {log_name}");
    Ok(())
}

/// What the operator should know if clients may take all of the descriptors that there are.
fn too_few_descriptors(most: u64, settings: &Settings) -> Option<String> {
    let limits = &settings.limits;
    let others =
        settings.neighbours.len() as u64 + limits.max_unproven + limits.max_places_connections;
    let left = most.saturating_sub(others + OWN_DESCRIPTORS);
    (left < limits.max_clients).then(|| {
        format!(
            "only {most} files may be open at once: where there are more than {left} clients, neighbours and Places may find none left; \
             raise that (ulimit -n), or lower limits.max_clients, which is {}",
            limits.max_clients
        )
    })
}

fn fail(status: u8, what: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "herd-mio: {what}");
    ExitCode::from(status)
}
