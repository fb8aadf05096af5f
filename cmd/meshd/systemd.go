package main

import (
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifier tells the service manager; nil where there is none.
func notifier(log *slog.Logger) func(string) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	return func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Debug("the service manager can't be told", "error", err)
		}
	}
}

// watchdog is how often the service manager wants a sign of life; 0: it does not.
func watchdog() time.Duration {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0
	}
	return every
}

// reloading tells the manager that the settings are being read again, with the time that it asks for.
func reloading(notify func(string)) {
	if notify == nil {
		return
	}
	state := daemon.SdNotifyReloading
	if at := daemon.SdNotifyMonotonicUsec(); at != "" {
		state += "\n" + at
	}
	notify(state)
}
