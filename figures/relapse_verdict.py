"""How much of the unsafe behaviour returns under each restoration, with the verdict of the relapse test."""

from mechinterp.report.plates import draw_script

if __name__ == "__main__":
    draw_script("relapse_verdict", __doc__)
