//! The memory that a server needs for an idle connection, which has sent one command.

use super::Bench;
use crate::figures::Metric;
use crate::server::LogLevel;
use crate::workshop::Program;

impl Bench<'_> {
    /// Uses a new server: one that had so many clients before would reuse their memory.
    pub(super) fn silence(&mut self, program: &Program) {
        let world = program.world;
        self.progress.begin("idle connections", world.name);
        let result = self.idle_bytes(program);
        if let Some(bytes) = self.note(world, "idle connections", &[Metric::Idle], result) {
            self.figures.push(world.name, Metric::Idle, bytes);
        }
        self.progress.done(self.plan.one_silence());
    }

    fn idle_bytes(&self, program: &Program) -> Result<f64, String> {
        let server = self.start(program, LogLevel::Warn)?;
        let connections = self.plan.idle_connections;
        let span = self.plan.silence_span();
        let mut command = self
            .generator
            .idle(server.clients, server.pid(), connections, span);
        let outcome = self.generator.run(&mut command)?;
        outcome
            .idle_bytes
            .ok_or_else(|| "herd-load does not report it".to_owned())
    }
}
