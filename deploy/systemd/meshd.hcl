# Settings of meshd: the flags of meshd run, without the dashes. The command line and the environment
# (MESHD_LISTEN...) come first. systemctl reload meshd reads it again. meshd config show --origin
# --config /etc/meshd/meshd.hcl tells what counts.

# listen       = ":6374"                  # TCP and UDP
# advertise    = ["mesh.example.org:6374"]
# tag          = { tier = "web", rack = "7" }
# http         = "127.0.0.1:6375"         # page, /healthz, /readyz, /metrics
# log-level    = "info"
# socket-group = "adm"                    # who may use meshctl besides root and meshd
data-dir = "/var/lib/meshd"
