//! The consumer of the time-series store.

use clap::Parser;
use understudy_consumer::config::Settings;
use understudy_consumer::service;
use understudy_consumer::timeseries::TimeSeriesSettings;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    view: TimeSeriesSettings,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    service::main(cli.settings, |_| Ok(cli.view.view())).await
}
