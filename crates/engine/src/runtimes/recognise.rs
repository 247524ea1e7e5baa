//! By what a runtime is recognised.

use crate::api::{Recognise, Runtime};
use crate::workload::{CommandLine, Container, Environment, Image};

/// What a container runs, taken apart once for all runtimes.
pub(super) struct Run<'a> {
    environment: Environment,
    image: Parts<'a>,
    /// Whether it runs what its image says.
    is_default: bool,
    commands: Vec<CommandLine>,
}

impl<'a> Run<'a> {
    pub(super) fn of(container: &Container<'a>) -> Self {
        let environment = Environment::new(container);
        let commands = CommandLine::commands_of(container, &environment);
        Self { environment, image: Parts::of(container.image()), is_default: is_default(container), commands }
    }

    /// Returns the words of the server where a runtime is run. What is run says more than the image: the server's image is also
    /// used to load models and to measure.
    pub(super) fn server(&self, runtime: &Runtime) -> Option<CommandLine> {
        let recognise = &runtime.recognise;
        let is_named = self.image.are_named(recognise);
        if let Some(program) = recognise.entrypoint.as_ref().filter(|_| is_named && self.is_default) {
            let commands: Vec<CommandLine> = self.commands.iter().map(|words| words.behind(program)).collect();
            return self.among(recognise, &commands, true);
        }
        // A command that is given, and is none of a server's, may do anything.
        self.among(recognise, &self.commands, is_named && (self.is_default || self.commands.is_empty()))
    }

    /// Finds the server among commands; in a server's own image the only command is one, unless it is a tool.
    fn among(&self, recognise: &Recognise, commands: &[CommandLine], is_named: bool) -> Option<CommandLine> {
        let serves = |words: &CommandLine| {
            let place = recognise.commands.iter().find_map(|command| words.run(command))?;
            Some(words.clone().with_operand(place))
        };
        if let Some(server) = commands.iter().find_map(serves) {
            return Some(server);
        }
        let is_tool = |words: &CommandLine| words.program().is_some_and(|program| is_tool(recognise, program));
        let is_server = is_named && !commands.iter().any(is_tool);
        is_server.then(|| CommandLine::joined(commands, &self.environment).with_operand(0))
    }

    /// Returns all words.
    pub(super) fn words(self) -> CommandLine {
        CommandLine::joined(&self.commands, &self.environment)
    }
}

/// Tells whether a container runs what its image says.
pub(super) fn is_default(container: &Container) -> bool {
    container.field("command").is_null()
}

/// Tells whether a program comes with a runtime: its servers' own with other words behind it, or another module of theirs.
fn is_tool(recognise: &Recognise, program: &str) -> bool {
    let servers = recognise.commands.iter().filter_map(|command| command.split(' ').next());
    let package = |name: &str| name.split_once('.').map(|(package, _)| package.to_owned());
    let mut known =
        servers.map(|server| server == program || package(server).is_some_and(|of| package(program) == Some(of)));
    recognise.tools.iter().any(|tool| tool == program) || known.any(|is_known| is_known)
}

/// Tells whether an image is one of a runtime's own.
pub(super) fn is_named(recognise: &Recognise, image: Image) -> bool {
    Parts::of(image).are_named(recognise)
}

/// An image's repository, part by part, the last one first; and its tag.
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

    /// Tells whether a pattern names the last parts of the repository.
    fn are_like(&self, pattern: &str) -> bool {
        let Some((found, above)) = self.repository.split_first() else { return false };
        // Most patterns end otherwise than the image does, which is seen before they are taken apart.
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
            Some(refused) => !self.tag.is_some_and(|tag| is_like(refused, tag)),
            None => self.tag.is_some_and(|tag| is_like(pattern, tag)),
        })
    }
}

/// Tells whether a text is like a pattern with a `*` at either end, or none.
fn is_like(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => text.ends_with(end),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => text == pattern,
    }
}
