class Forkd < Formula
  desc "Network daemon for echo and other services, by forks, threads or events"
  homepage "https://github.com/forkd/forkd"
  url "https://github.com/forkd/forkd/archive/refs/tags/v0.1.0.tar.gz"
  # brew bump-formula-pr writes the sum, once the release is there
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license any_of: ["MIT", "Apache-2.0"]
  head "https://github.com/forkd/forkd.git", branch: "main"

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    generate_completions_from_executable(bin/"forkd", "completions")
    system bin/"forkd", "man", "--dir", man
  end

  service do
    run [opt_bin/"forkd", "serve"]
    keep_alive true
    log_path var/"log/forkd.log"
    error_log_path var/"log/forkd.log"
  end

  test do
    port = free_port
    pid = spawn bin/"forkd", "serve", "tcp://127.0.0.1:#{port}"
    sleep 2
    system bin/"forkd", "probe", "tcp://127.0.0.1:#{port}"
  ensure
    Process.kill "TERM", pid
    Process.wait pid
  end
end
