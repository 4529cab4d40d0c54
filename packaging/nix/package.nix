# nix-build -E 'with import <nixpkgs> { }; callPackage ./package.nix { }'
{
  lib,
  stdenv,
  rustPlatform,
  installShellFiles,
}:

rustPlatform.buildRustPackage {
  pname = "forkd";
  version = "0.1.0";

  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;

  nativeBuildInputs = [ installShellFiles ];
  # a static process is cheaper to fork
  buildInputs = lib.optionals stdenv.hostPlatform.isGnu [ stdenv.cc.libc.static ];

  # the others talk to programs of the system
  cargoTestFlags = [ "--lib" ];

  postInstall = ''
    $out/bin/forkd man --dir man
    installManPage man/man1/forkd.1 man/man5/forkd.toml.5
    installShellCompletion --cmd forkd \
      --bash <($out/bin/forkd completions bash) \
      --zsh <($out/bin/forkd completions zsh) \
      --fish <($out/bin/forkd completions fish)
  '';

  meta = {
    description = "Network daemon for echo and other services, by forks, threads or events";
    homepage = "https://github.com/forkd/forkd";
    license = with lib.licenses; [
      mit
      asl20
    ];
    platforms = lib.platforms.unix;
    mainProgram = "forkd";
  };
}
