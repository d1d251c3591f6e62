"""What a clinic's staff do all day, as Locust's users do it."""

from random import choice, randrange

from locust import HttpUser, between, task

NAMES = ("Amina", "Bo", "Chidi", "Dolores", "Elif", "Farid", "Grace", "Hideo")


class Nurse(HttpUser):
    """Looks at the list, opens a record, writes one now and then."""

    wait_time = between(0.5, 1.5)

    @task(6)
    def look(self) -> None:
        self.client.get("/patients")

    @task(3)
    def admit(self) -> None:
        born = f"{randrange(1930, 2020)}-{randrange(1, 13):02}-{randrange(1, 28):02}"
        with self.client.post("/patients", json={"name": choice(NAMES), "born": born}, catch_response=True) as answer:
            if answer.status_code != 201:
                answer.failure(f"not admitted: {answer.status_code}")
                return
            key = answer.json()["id"]
        self.client.get(f"/patients/{key}", name="/patients/[id]")
        self.client.put(
            f"/patients/{key}", name="/patients/[id]", json={"name": choice(NAMES), "born": born, "notes": "seen"}
        )

    @task(1)
    def discharge(self) -> None:
        """Of those whom one of us has seen: records that others wrote are theirs."""
        seen = [row["id"] for row in self.client.get("/patients").json() if row["notes"] == "seen"]
        if seen:
            self.client.delete(f"/patients/{seen[-1]}", name="/patients/[id]")
