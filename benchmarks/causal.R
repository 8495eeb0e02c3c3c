# Seconds of mediation::mediate (1,000 draws) and medsens (10 points) on framing. Rscript causal.R DATA.csv REPEATS
suppressMessages({library(mediation);library(jsonlite)})
a=commandArgs(TRUE);d=read.csv(a[1],stringsAsFactors=TRUE)
once=function(){m=lm(emo~treat+age+educ+gender+income,d)
 y=glm(cong_mesg~emo+treat+age+educ+gender+income,d,family=binomial("probit"))
 o=mediate(m,y,treat="treat",mediator="emo",robustSE=TRUE,sims=1000);s=medsens(o,rho.by=0.2,effect.type="indirect",sims=1000);summary(o)}
t=sapply(seq_len(as.integer(a[2])),function(k)system.time(once())[["elapsed"]])
cat(toJSON(list(mediation=as.character(packageVersion("mediation")),seconds=median(t)),auto_unbox=TRUE,digits=NA),"\n")
