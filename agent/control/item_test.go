package control

import (
	"encoding/json"
	"testing"
	"time"
)

// Programs read these shapes: a change here is a new apiVersion, except for fields that are added.
func TestItemsEncodeAsPromised(t *testing.T) {
	tests := []struct {
		name string
		item any
		want string
	}{
		{"empty member", Member{}, `{"name":"","id":"","status":"","kind":"","self":false,"address":"","tags":{},"roles":[],"rtt_seconds":0,"promises":{"kept":0,"repaired":0,"failed":0,"waiting":0,"drifted":0},"score":"","version":"","platform":"","placed":[],"waiting":[],"waiting_bytes":0}`},
		{"member", fullMember(), `{"name":"host","id":"ab","status":"alive","kind":"member","self":true,"address":"127.0.0.1:6374","tags":{"kind":"parent"},"roles":["parent"],"rtt_seconds":0.0005,"promises":{"kept":1,"repaired":2,"failed":3,"waiting":4,"drifted":5},"score":"postcards 1.0.0","version":"v1","platform":"linux/amd64","last_seen":"2026-11-22T10:00:00.5Z","absent_since":"2026-11-22T10:00:00.5Z","placed":[{"name":"app","version":"1","hash":"2c26"}],"waiting":[{"name":"app","version":"2","hash":"9f86","size_bytes":7}],"waiting_bytes":7}`},
		{"empty artifact", Artifact{}, `{"name":"","version":"","counter":0,"hash":"","size_bytes":0,"publisher":"","publisher_id":"","holders":[],"wanted":[],"local":false,"of":[]}`},
		{"artifact", fullArtifact(), `{"name":"package","version":"3","counter":3,"hash":"9f86","size_bytes":10,"publisher":"host","publisher_id":"ab","published_at":"2026-11-22T10:00:00.5Z","holders":["host"],"wanted":["c1"],"local":true,"of":[{"name":"postcard/c1","version":"1","hash":"2c26"}]}`},
		{"promise", fullPromise(), `{"node":"host","address":"a.file.b[\"c\"]","type":"file","outcome":"kept","reason":"as promised","why":"so","since":"2026-11-22T10:00:00.5Z","checked_at":"2026-11-22T10:00:00.5Z","repairs":2}`},
		{"role", Role{Name: "parent"}, `{"name":"parent","held":false,"unknown":false,"why":"","because":[]}`},
		{"story", StoryItem{ID: "a/1", Text: "<&>", Cause: "b/2"}, `{"id":"a/1","node":"","kind":"","subject":"","outcome":"","text":"<&>","cause":"b/2"}`},
		{"change", Change{Kind: "role", Change: "added", Name: "web"}, `{"kind":"role","change":"added","name":"web","why":"","problem":""}`},
		{"trouble", Trouble{Level: LevelWarning, Check: "port"}, `{"level":"warning","check":"port","subject":"","text":"","advice":""}`},
		{"no tags", Tags{}, `{"tags":{}}`},
		{"score", Score{State: "none"}, `{"name":"","version":"","hash":"","why":"","files":{},"state":"none","problem":""}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := encode(tt.item)
			if err != nil || string(got) != tt.want+"\n" {
				t.Errorf("err %v, got\n%swant\n%s", err, got, tt.want)
			}
		})
	}
}

func TestTimesAreToldInUTC(t *testing.T) {
	oslo := time.FixedZone("", 3600)
	b, err := json.Marshal(Promise{Since: moment.In(oslo)})
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		Since string `json:"since"`
	}
	if err := json.Unmarshal(b, &p); err != nil || p.Since != "2026-11-22T10:00:00.5Z" {
		t.Errorf("err %v, since %q", err, p.Since)
	}
}
