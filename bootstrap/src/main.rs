//! `understudy`.

use std::process::ExitCode;

use bootstrap::{cli, ui};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    continuity::aws::install_tls();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no errors, and clap says so.
        Err(answer) => {
            let _ = answer.print();
            return if answer.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli::run(cli).await {
        Ok(ending) => ExitCode::from(ending.code()),
        Err(failure) => {
            ui::print_error(failure.message(), failure.next());
            ExitCode::FAILURE
        }
    }
}
