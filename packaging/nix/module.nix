# A service of NixOS: imports = [ ./module.nix ]; services.forkd.enable = true;
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.forkd;
in
{
  options.services.forkd = {
    enable = lib.mkEnableOption "forkd, a daemon for echo and other services";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      description = "The package that has forkd.";
    };
    arguments = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [
        "tcp://[::]:7"
        "udp://[::]:7"
      ];
      example = [
        "--model"
        "prefork"
        "tcp://[::]:7007"
      ];
      description = "Options and endpoints of forkd serve.";
    };
  };

  config = lib.mkIf cfg.enable {
    systemd.services.forkd = {
      description = "forkd";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      serviceConfig = {
        Type = "notify";
        ExecStart = "${lib.getExe cfg.package} serve --control %t/forkd/control.sock ${lib.escapeShellArgs cfg.arguments}";
        ExecReload = "${lib.getExe cfg.package} reload --control %t/forkd/control.sock";
        DynamicUser = true;
        RuntimeDirectory = "forkd";
        AmbientCapabilities = "CAP_NET_BIND_SERVICE";
        NoNewPrivileges = true;
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
        Restart = "on-failure";
      };
    };
  };
}
