//! Matches containers against the descriptions of runtimes.

use super::{Provenance, multi_node};
use crate::api::{Recognise, Runtime};
use crate::workload::{CommandLine, Container, Environment, Image};

/// A container's image and commands, parsed once for all runtimes.
pub(super) struct Run<'a> {
    environment: Environment,
    image: Parts<'a>,
    /// Whether it runs the image's own command.
    is_default: bool,
    commands: Vec<CommandLine>,
}

impl<'a> Run<'a> {
    pub(super) fn of(container: &Container<'a>) -> Self {
        let environment = Environment::new(container);
        let commands = CommandLine::commands_of(container, &environment);
        Self { environment, image: Parts::of(container.image()), is_default: is_default(container), commands }
    }

    /// Returns the server's command line, and how it is known, if the container runs a runtime. Commands take
    /// precedence over the image: a server's image is also used to load models and to benchmark.
    pub(super) fn server(&self, runtime: &Runtime) -> Option<(CommandLine, Provenance)> {
        let recognise = &runtime.recognise;
        let is_named = self.image.are_named(recognise);
        if let Some(program) = recognise.entrypoint.as_ref().filter(|_| is_named && self.is_default) {
            let commands: Vec<CommandLine> = self.commands.iter().map(|words| words.behind(program)).collect();
            return self.among(recognise, &commands, true).map(|(words, _)| (words, Provenance::Image));
        }
        // A command that is set, and is not a server's, may do anything.
        self.among(recognise, &self.commands, is_named && (self.is_default || self.commands.is_empty()))
    }

    /// Finds the server among commands. In a server's own image, any command is the server unless one is a tool.
    fn among(
        &self,
        recognise: &Recognise,
        commands: &[CommandLine],
        is_named: bool,
    ) -> Option<(CommandLine, Provenance)> {
        let serves = |words: &CommandLine| {
            let run = |command: &String| Some((words.run(command)?, Provenance::Command(command.clone())));
            let (place, provenance) = recognise.commands.iter().find_map(run)?;
            Some((words.clone().with_operand(place), provenance))
        };
        if let Some(server) = commands.iter().find_map(serves) {
            return Some(server);
        }
        let is_tool = |words: &CommandLine| words.program().is_some_and(|program| is_tool(recognise, program));
        let is_server = is_named && !commands.iter().any(is_tool);
        is_server.then(|| (CommandLine::joined(commands, &self.environment).with_operand(0), Provenance::Image))
    }

    /// Returns the sign that the container is a part of a server that runs in several pods.
    pub(super) fn multi_node(&self) -> Option<String> {
        match self.commands.as_slice() {
            [] => multi_node::sign(&[self.words()]),
            commands => multi_node::sign(commands),
        }
    }

    /// Returns the whole command line.
    pub(super) fn words(&self) -> CommandLine {
        CommandLine::joined(&self.commands, &self.environment)
    }
}

/// Returns whether a container runs the image's own command.
pub(super) fn is_default(container: &Container) -> bool {
    !container.has_items("command")
}

/// Returns whether a program comes with a runtime: a server's program with other arguments, or another module of its
/// package.
fn is_tool(recognise: &Recognise, program: &str) -> bool {
    let servers = recognise.commands.iter().filter_map(|command| command.split(' ').next());
    let package = |name: &str| name.split_once('.').map(|(package, _)| package.to_owned());
    let mut known =
        servers.map(|server| server == program || package(server).is_some_and(|of| package(program) == Some(of)));
    recognise.tools.iter().any(|tool| tool == program) || known.any(|is_known| is_known)
}

/// Returns whether an image is one of a runtime's own.
pub(super) fn is_named(recognise: &Recognise, image: Image) -> bool {
    Parts::of(image).are_named(recognise)
}

/// The parts of an image's repository, last first, and its tag.
struct Parts<'a> {
    repository: Vec<&'a str>,
    tag: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(image: Image<'a>) -> Self {
        Self { repository: image.repository().rsplit('/').collect(), tag: image.tag() }
    }

    fn are_named(&self, recognise: &Recognise) -> bool {
        recognise.images.iter().any(|pattern| self.are_like(pattern)) && self.tag_fits(recognise)
    }

    /// Returns whether a pattern matches the last parts of the repository.
    fn are_like(&self, pattern: &str) -> bool {
        let Some((found, above)) = self.repository.split_first() else { return false };
        // A fast check that excludes most patterns before they are parsed.
        if !pattern.ends_with('*') && !pattern.ends_with(found) {
            return false;
        }
        let (folders, last) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        let last_fits = last.strip_suffix('*').map_or(*found == last, |prefix| found.starts_with(prefix));
        let mut above = above.iter();
        last_fits && (folders.is_empty() || folders.rsplit('/').all(|wanted| above.next() == Some(&wanted)))
    }

    fn tag_fits(&self, recognise: &Recognise) -> bool {
        recognise.tags.iter().all(|pattern| match pattern.strip_prefix('!') {
            Some(excluded) => !self.tag.is_some_and(|tag| is_like(excluded, tag)),
            None => self.tag.is_some_and(|tag| is_like(pattern, tag)),
        })
    }
}

/// Returns whether a text matches a pattern, which may have a `*` at either end.
pub(super) fn is_like(pattern: &str, text: &str) -> bool {
    let (is_open, rest) = pattern.strip_prefix('*').map_or((false, pattern), |rest| (true, rest));
    match (is_open, rest.strip_suffix('*')) {
        (true, Some(part)) => text.contains(part),
        (true, None) => text.ends_with(rest),
        (false, Some(start)) => text.starts_with(start),
        (false, None) => text == rest,
    }
}
