//! What a connection costs a server that spoke once and fell silent.

use super::Bench;
use crate::figures::Metric;
use crate::server::LogLevel;
use crate::workshop::Program;

impl Bench<'_> {
    /// On a server that was just started: one that had as many clients before would use that memory again.
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
            .ok_or_else(|| "herd-load does not say".to_owned())
    }
}
