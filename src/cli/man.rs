//! `innkeeper man`: one page about all commands, or a page about one.

use clap_mangen::Man;

use super::CommandError;
use super::output::{self, Answer};

/// Prints the manual page, or that of one command.
pub(super) fn run(words: &[String], command: clap::Command) -> Result<Answer, CommandError> {
    output::print(page(words, command)?)?;
    Ok(Answer::nothing())
}

/// The page in roff. That of a command that has others below it is about those too.
fn page(words: &[String], command: clap::Command) -> anyhow::Result<String> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut found = &command;
    for word in words {
        let next = found.get_subcommands().find(|one| one.get_name() == word.as_str());
        found = next.ok_or_else(|| anyhow::anyhow!("there is no command {}", crate::name::printable(&words.join(" "))))?;
    }
    let man = Man::new(found.clone());
    let mut page = Vec::new();
    for section in [Man::render_name_section, Man::render_synopsis_section, Man::render_description_section, Man::render_options_section] {
        section(&man, &mut page)?;
    }
    // Without a date, so that it is the same whenever it is built.
    let called = plain(&found.get_bin_name().unwrap_or_else(|| found.get_name()).replace(' ', "-"));
    let title = format!(".TH {called} 1 \"\" \"innkeeper {}\"\n", env!("CARGO_PKG_VERSION"));
    let mut text = title + &String::from_utf8(page)?;
    let commands = all_below(found);
    if !commands.is_empty() {
        text.push_str(".SH COMMANDS\n");
    }
    for one in commands {
        text.push_str(&about(one)?);
    }
    let mut rest = Vec::new();
    if found.get_after_help().is_some() {
        man.render_extra_section(&mut rest)?;
    }
    text.push_str(&String::from_utf8(rest)?.replacen(".SH EXTRA\n", ".SH NOTES\n", 1));
    // What stands between a paragraph and the values of an option: one space, and not three.
    Ok(text.replace(".br\n\n.br\n", ".sp\n"))
}

/// Every command below this one that does something.
fn all_below(command: &clap::Command) -> Vec<&clap::Command> {
    let below = command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help");
    below.flat_map(|one| if one.has_subcommands() { all_below(one) } else { vec![one] }).collect()
}

/// What a page says of one of many commands: how it is called, what it does, and its options.
fn about(command: &clap::Command) -> anyhow::Result<String> {
    let man = Man::new(command.clone());
    let section = |render: fn(&Man, &mut dyn std::io::Write) -> std::io::Result<()>| {
        let mut text = Vec::new();
        render(&man, &mut text)?;
        let text = String::from_utf8(text)?;
        // Without what every section of a page of its own begins with.
        Ok::<_, anyhow::Error>(
            text.split_once(".SH ").and_then(|(_, rest)| rest.split_once('\n')).map(|(_, rest)| rest.to_owned()).unwrap_or_default(),
        )
    };
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    // With the arguments of the commands that it is below, which its own page has elsewhere.
    let usage = command.clone().render_usage().to_string();
    let synopsis = usage.trim_start_matches("Usage:").split_whitespace().collect::<Vec<_>>().join(" ");
    let (name, synopsis) = (plain(name), plain(&synopsis));
    let description = section(Man::render_description_section)?;
    let options = section(Man::render_options_section)?;
    Ok(format!(".SS \"{name}\"\n\\fB{synopsis}\\fR\n.PP\n{description}{options}"))
}

/// Words that roff shows as they are.
fn plain(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
